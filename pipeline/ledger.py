"""Which committed failures are final, and which are tried again by the next run."""

from collections.abc import Callable, Set

from schemas.record import ErrorClass

# (status, error class, run id) of a committed record -> whether its row is done again.
Redo = Callable[[str, str | None, str], bool]

# Failures that say nothing of the row: a slow network, a host that is down.
_PASSING = {ErrorClass.ASSET_TIMEOUT, ErrorClass.ASSET_UNAVAILABLE}


def is_passing(status: str, error_class: str | None, run_id: str) -> bool:
    """Whether the row of this committed record is tried again."""
    return error_class in _PASSING


def redo_after(circuits: Set[tuple[str, str]]) -> Redo:
    """As `is_passing`, and what failed in the way that made the circuit breaker stop its run (see `open_circuits`)."""

    def redo(status: str, error_class: str | None, run_id: str) -> bool:
        return is_passing(status, error_class, run_id) or (run_id, error_class) in circuits

    return redo
