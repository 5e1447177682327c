"""Bounded retries of what is transient, with exponential backoff and jitter."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from actors.storage_errors import StorageError

T = TypeVar("T")
_FIRST_DELAY_S = 0.25
_LONGEST_DELAY_S = 8.0
_SHORTEST_ATTEMPT_S = 0.05


class TransientError(Exception):
    """Wraps the error to raise if trying again does not help."""

    def __init__(self, error: StorageError):
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long one operation is tried.

    Args:
        retries: tries after the first.
        patience_s: a transient error is retried this long even beyond `retries`: what an outage may last.
    """

    retries: int
    patience_s: float = 0.0

    def run(self, attempt: Callable[[float], T], timeout_s: float) -> T:
        """`attempt(seconds it may take)`, tried until it succeeds, fails for good, or nothing is left to try.

        All tries together take at most `timeout_s` (or `patience_s`, where that is longer); one takes at most
        `timeout_s`.

        Raises:
            StorageError: the last one.
        """
        started = time.monotonic()
        budget_s = max(timeout_s, self.patience_s)
        tries = 0
        while True:
            left_s = budget_s - (time.monotonic() - started)
            try:
                return attempt(max(min(timeout_s, left_s), _SHORTEST_ATTEMPT_S))
            except TransientError as transient:
                delay_s = _backoff_s(tries)
                tries += 1
                ends_s = time.monotonic() - started + delay_s
                if ends_s >= budget_s or (tries > self.retries and ends_s >= self.patience_s):
                    raise transient.error from transient
            time.sleep(delay_s)


def _backoff_s(tries: int) -> float:
    """Half of it is random, so that a thousand actors do not come back at the same moment."""
    longest = min(_FIRST_DELAY_S * 2 ** min(tries, 16), _LONGEST_DELAY_S)
    return longest * random.uniform(0.5, 1.0)
