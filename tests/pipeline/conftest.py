"""Two ways to run work units in tests: in this process, and on a local Ray."""

import pytest

from tests.support.rendering import render_in_process


@pytest.fixture(scope="module")
def local_ray():
    """One Ray for a module's runs; `ray_session` uses it instead of starting its own."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def in_process(monkeypatch):
    """Renders without Ray, in this process: the flow of rows is the same, and starting takes no time."""
    render_in_process(monkeypatch)
