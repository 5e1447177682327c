"""How long fuzzing takes: a few seconds in every test run, or as long as one likes.

`python -m pytest tests/fuzz --hypothesis-profile=long` tries 3,000 inputs per test (some twenty minutes) and
keeps what it finds in `.hypothesis/`. What was found once stands as an `@example` beside its test.
"""

from hypothesis import HealthCheck, settings

_SHARED = {"deadline": None, "suppress_health_check": list(HealthCheck)}

# The same inputs every time: a test suite that fails now and then tells little.
settings.register_profile("short", max_examples=40, derandomize=True, database=None, **_SHARED)
settings.register_profile("long", max_examples=3_000, **_SHARED)
settings.load_profile("short")
