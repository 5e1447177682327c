"""The circuit breaker: a run in which most rows fail in the same way stops, instead of failing a million times."""

import json
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

from actors.records import Record
from actors.storage import ObjectNotFound, Storage, join
from schemas.run import InfrastructureError

_WINDOW = 200
_MAX_BYTES = 2**20


class CircuitOpen(InfrastructureError):  # noqa: N818 - the circuit breaker's own word
    """Too many rows fail in one way."""

    def __init__(self, error_class: str, count: int, of: str, example: Record):
        super().__init__(
            f"circuit breaker: {count} of {of} failed with {error_class}, for example row {example['row_id']!r}: "
            f"{example['error']}. The run has stopped; everything finished is kept. Once the cause is gone, the same "
            f"command goes on and tries the rows that failed this way again; or accept them with --max-failed-fraction"
        )
        self.error_class = error_class
        self.count = count


class Breaker:
    """Watches the records of a run as they come.

    When it opens, the output remembers that failures of this class, by this run, say nothing of their rows: they do
    not count as done (see `open_circuits`).

    Args:
        accepted: the share of rows that may fail by the run's config; below a half, a half may.
        window: how many of the last rows are looked at.
    """

    def __init__(
        self, storage: Storage, output: str, run_id: str, accepted: float = 0.0, window: int = _WINDOW
    ):
        self._storage = storage
        self._output = output
        self._run_id = run_id
        self._limit = max(0.5, accepted)
        self._window = window
        self._last: deque[str | None] = deque()
        self._counts: Counter[str | None] = Counter()

    def saw(self, record: Record) -> None:
        """Takes a finished row into account.

        Raises:
            CircuitOpen: too many of the last rows failed in the way of this one.
        """
        error_class = record["error_class"]
        self._last.append(error_class)
        self._counts[error_class] += 1
        if len(self._last) > self._window:
            self._counts[self._last.popleft()] -= 1
        count, seen = self._counts[error_class], len(self._last)
        if error_class and seen == self._window and count > self._limit * seen:
            self._open(CircuitOpen(error_class, count, f"the last {seen} rows", record))

    def saw_plan(self, failures: Iterable[Record], failed: int, rows: int) -> None:
        """Takes the rows that could not be planned into account, of `rows` that are not finished yet.

        Raises:
            CircuitOpen: too many of them, and not just a few, fail in one way.
        """
        few = self._limit * max(rows, self._window)
        if failed <= few:
            return
        counts: Counter[str] = Counter()
        for record in failures:
            error_class = record["error_class"]
            counts[error_class] += 1
            if counts[error_class] > few:
                self._open(CircuitOpen(error_class, counts[error_class], f"{rows} unfinished rows", record))

    def _open(self, error: CircuitOpen) -> NoReturn:
        entry = {
            "run_id": self._run_id,
            "error_class": error.error_class,
            "count": error.count,
            "message": str(error),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        entries = [*_entries(self._storage, self._output), entry]
        body = json.dumps(entries, indent=1, ensure_ascii=False).encode()
        self._storage.write_bytes(_uri(self._output), body)
        raise error


def open_circuits(storage: Storage, output: str) -> set[tuple[str, str]]:
    """(run id, error class) of every run that the breaker stopped."""
    return {(str(entry.get("run_id")), str(entry.get("error_class"))) for entry in _entries(storage, output)}


def _entries(storage: Storage, output: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(storage.read_bytes(_uri(output), _MAX_BYTES))
    except (ObjectNotFound, ValueError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _uri(output: str) -> str:
    return join(output, "run", "circuit.json")
