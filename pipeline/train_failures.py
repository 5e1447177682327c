"""Failures of training workers, told from what Ray Train wraps around them, and interrupts."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ray.train import TrainingFailedError

from schemas.manifest import ManifestError
from schemas.run import InfrastructureError, UsageError

_NAMED = (InfrastructureError, ManifestError, UsageError)


@contextmanager
def as_training_failure() -> Iterator[None]:
    """Raises our own error behind one of Ray Train's; any other failure of a worker stays as it is.

    Raises:
        UsageError, ManifestError, InfrastructureError: a worker's own words.
    """
    try:
        yield
    except TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            # Ray Train carries the worker's exception inside one that knows its traceback.
            cause = getattr(failure, "_base_exc", failure)
            named = next((kind for kind in _NAMED if isinstance(cause, kind)), None)
            if named is not None:
                raise named(str(cause)) from error
        raise


@contextmanager
def interrupted_like_others() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt, as everywhere; Ray Train stops its workers at it, but then exits with 0.

    Raises:
        KeyboardInterrupt: once the workers have stopped.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if in_main_thread:  # Ray Train leaves its own handler
            signal.signal(signal.SIGINT, handler)
