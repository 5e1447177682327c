"""Failures that end a run, told from what Ray wraps around them."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from schemas.manifest import ManifestError
from schemas.run import InfrastructureError, UsageError

_NAMED = (InfrastructureError, ManifestError, UsageError)


@contextmanager
def as_run_failure(who: str = "the render actors") -> Iterator[None]:
    """Raises what Ray Data reports as the error of ours behind it, or an InfrastructureError with Ray's words."""
    try:
        yield
    except (RayError, ExecutionTimeoutError) as error:
        raise named_cause(error) or InfrastructureError(f"{who} failed: {_last_line(error)}") from error


def named_cause(error: BaseException) -> Exception | None:
    """The error of ours that Ray wrapped, without what Ray adds to its message; None if there is none."""
    for cause in _chain(error):
        named = next((kind for kind in _NAMED if isinstance(cause, kind)), None)
        if named is not None and not isinstance(cause, RayError):
            return named(str(cause).splitlines()[0])
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        links = (getattr(current, "cause", None), current.__cause__, current.__context__)
        waiting += [link for link in links if isinstance(link, BaseException)]


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
