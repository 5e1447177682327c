"""What a fault is, and where it is written down that it happened.

A fault directory belongs to one manifest's life: `faults.json` holds what may happen, `fired/ID` that it did (made
with O_EXCL, so that a fault which kills happens once), `events.jsonl` what the render processes did, in order.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "FAULTS_DIRECTORY"  # read by the harness's own hooks, never by the product
STACKS_SIGNAL = signal.SIGUSR1  # a run's driver answers with the stacks of all its threads, in its log


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        point: where the hooks let it happen (see `hooks`); None: the harness brings it about itself.
        row_id: the row that it waits for at its point, or that it spoils; None: the first to pass.
        action: what happens (see `actions`).
        lasting: it happens whenever its row passes, not once.
    """

    id: str
    kind: str
    point: str | None = None
    row_id: str | None = None
    action: str = ""
    lasting: bool = False


@dataclass(frozen=True)
class Event:
    """What a process did: `rendering`, `published`, `committed` (of an ok record), or that it began: `driver`, `actor`."""

    name: str
    pid: int
    row_key: str | None = None
    row_id: str | None = None


class FaultDirectory:
    """The faults of one life, shared by all its processes on this machine."""

    def __init__(self, path: Path):
        self.path = path
        self._fired = path / "fired"
        self._events = path / "events.jsonl"

    def create(self, faults: Sequence[Fault]) -> None:
        """Makes the directory with what may happen."""
        self._fired.mkdir(parents=True)
        self._events.touch()
        (self.path / "faults.json").write_text(json.dumps([asdict(fault) for fault in faults]))

    def faults(self) -> list[Fault]:
        """What may happen."""
        return [Fault(**found) for found in json.loads((self.path / "faults.json").read_text())]

    def claim(self, fault: Fault) -> bool:
        """Whether it happens now; a fault that is not lasting happens once, whoever asks."""
        try:
            (self._fired / fault.id).open("x").close()
        except FileExistsError:
            return fault.lasting
        return True

    def unclaim(self, fault: Fault) -> None:
        """It did not happen after all (its victim was gone already)."""
        with suppress(FileNotFoundError):
            (self._fired / fault.id).unlink()

    def fired(self) -> set[str]:
        """The ids of all faults that happened."""
        return {path.name for path in self._fired.iterdir()}

    def log(self, name: str, row_key: str | None = None, row_id: str | None = None) -> None:
        """Appends an event in one write, which no other process's can split."""
        line = json.dumps([time.monotonic(), name, os.getpid(), row_key, row_id]) + "\n"
        descriptor = os.open(self._events, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def events_size(self) -> int:
        """In bytes: it grows while anything happens."""
        return self._events.stat().st_size

    def events(self) -> Iterator[Event]:
        """Every event so far, in the order in which they happened."""
        for line in self._events.read_text().splitlines():
            _, *values = json.loads(line)
            yield Event(*values)

    def write_pid(self, name: str, pid: int) -> None:
        """Notes whom `kill` is to hit."""
        (self.path / f"{name}.pid").write_text(str(pid))

    def read_pid(self, name: str) -> int | None:
        """The noted pid, or None."""
        try:
            return int((self.path / f"{name}.pid").read_text())
        except FileNotFoundError:
            return None


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, as evenly apart as they can be, in their order."""
    return [items[index * len(items) // count] for index in range(count)]
