"""Attempt markers: which rows were in a process's hands when it ended without a word.

A marker is written before its row is rendered and removed once the row is committed. What is left after a process
died, or after the whole machine did, are the rows that it may have died of.
"""

import json
import os
import platform
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from actors.storage import ObjectNotFound, Storage, join
from schemas.planned import PlannedRow
from schemas.record import RowError

_NAME = re.compile(r"/([0-9a-f]{32})/(\d+)\.json$")
_MAX_BYTES = 2**20
_WRITERS = 8

Marker = dict[str, Any]


class AttemptLog:
    """Reads and writes `attempts/<2 hex>/<record_id>/<n>.json` below an output; n counts a row's attempts from 1."""

    def __init__(self, storage: Storage, output: str):
        self._storage = storage
        self._root = join(output, "attempts")

    def uri(self, record_id: str, attempt: int) -> str:
        return join(self._root, record_id[:2], record_id, f"{attempt}.json")

    def write(self, marker: Marker) -> None:
        body = json.dumps(marker, ensure_ascii=False).encode()
        self._storage.write_bytes(self.uri(marker["record_id"], marker["attempt"]), body)

    def read(self, record_id: str, attempt: int) -> Marker | None:
        """A marker, or None; one that cannot be read still says that the attempt began."""
        try:
            body = self._storage.read_bytes(self.uri(record_id, attempt), _MAX_BYTES)
        except ObjectNotFound:
            return None
        try:
            marker = json.loads(body)
        except ValueError:
            marker = None
        return marker if isinstance(marker, dict) else {"record_id": record_id, "attempt": attempt}

    def clear(self, record_id: str, attempts: int) -> None:
        """Removes the markers of a row's first attempts."""
        for attempt in range(1, attempts + 1):
            self._storage.delete(self.uri(record_id, attempt))

    def counts(self) -> dict[str, int]:
        """How many attempts each row has behind it, of rows whose markers are there."""
        found: dict[str, int] = {}
        for stat in self._storage.list(self._root):
            if name := _NAME.search(stat.uri):
                found[name[1]] = max(found.get(name[1], 0), int(name[2]))
        return found


class OwnAttempts:
    """The attempts of one process. Safe under threads.

    Args:
        begun: earlier attempts of rows that have any.
        shared: what all markers of the process say besides where it is: run, Ray session, whether rows are alone.
    """

    def __init__(self, log: AttemptLog, begun: Mapping[str, int], shared: Mapping[str, Any]):
        self._log = log
        self._begun = dict(begun)
        place = {"node_id": _ray_node_id(), "node": platform.node(), "pid": os.getpid()}
        self._shared = place | dict(shared)
        self._in_flight: dict[str, Marker] = {}
        self._lock = threading.Lock()

    def begin(self, rows: Sequence[PlannedRow]) -> None:
        """Marks an attempt of each row; when it returns, the markers are in the store."""
        with self._lock:
            ids = [row.record_id for row in rows]
            together = [*self._in_flight, *ids]
            markers = [self._marker(row, together) for row in rows]
            self._in_flight |= dict(zip(ids, markers, strict=True))
            self._begun |= {marker["record_id"]: marker["attempt"] for marker in markers}
        if len(markers) == 1:
            self._log.write(markers[0])
            return
        with ThreadPoolExecutor(_WRITERS) as writers:
            list(writers.map(self._log.write, markers))

    def count(self, row: PlannedRow) -> int:
        """The attempts of a row so far; one whose video was found finished, or whose picture was not, counts as one."""
        return max(1, self._begun.get(row.record_id, 0))

    def end(self, row: PlannedRow) -> None:
        """Removes the row's markers: it is committed."""
        with self._lock:
            self._in_flight.pop(row.record_id, None)
        self._log.clear(row.record_id, self._begun.get(row.record_id, 0))

    def explain(self, error: RowError) -> None:
        """Adds to the markers in flight why their process is about to end."""
        with self._lock:
            markers = list(self._in_flight.values())
        for marker in markers:
            self._log.write({**marker, "error_class": error.error_class, "error": error.message})

    def _marker(self, row: PlannedRow, together: list[str]) -> Marker:
        return {
            "record_id": row.record_id,
            "row_id": row.row_id,
            "row_key": row.row_key,
            "attempt": self._begun.get(row.record_id, 0) + 1,
            **self._shared,
            "in_flight": together,
            "started_at": datetime.now(UTC).isoformat(),
        }


def _ray_node_id() -> str:
    """The Ray node that this process runs on; empty outside Ray."""
    import ray  # an actor works without it

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
