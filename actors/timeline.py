"""What one render actor did when, for `--profile`: a file in the trace-event format that Perfetto opens."""

import json
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors.actor_config import ActorConfig
from actors.renderer import RenderedVideo
from actors.storage import Storage, join
from schemas.planned import PlannedRow
from schemas.record import RowError

FOLDER = "_profile"
_MAX_SPANS = 20_000  # the beginning of a long run; about 4 MB
_DEVICE_LANE = "device"
_DEVICE_STAGES = ("condition", "denoise", "decode", "score")


class Timeline:
    """Spans of rows in stages. Safe under threads; nothing is kept where the run did not ask for it."""

    def __init__(self, storage: Storage, config: ActorConfig):
        self._storage = storage
        self._name = f"{config.provenance.run_id}-{platform.node()}-{os.getpid()}"
        self._uri = join(config.output, FOLDER, f"{self._name}.json") if config.profile else None
        self._began = time.perf_counter()
        self._lanes: dict[str, int] = {}
        self._spans: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def ended(self, rows: Sequence[PlannedRow], seconds: Mapping[str, float]) -> None:
        """Stages (as in the records' timings) that followed each other and of which the last ended just now."""
        if not self._uri:
            return
        start_s = time.perf_counter() - self._began - sum(seconds.values())
        row_ids = [row.row_id for row in rows]
        with self._lock:
            for name, duration_s in seconds.items():
                stage = name.removesuffix("_s")
                lane = _DEVICE_LANE if stage in _DEVICE_STAGES else threading.current_thread().name
                if duration_s and len(self._spans) < _MAX_SPANS:
                    self._spans.append(
                        {
                            "name": stage,
                            "ph": "X",  # a span with its duration
                            "ts": max(start_s, 0.0) * 1e6,  # microseconds
                            "dur": duration_s * 1e6,
                            "pid": os.getpid(),
                            "tid": self._lanes.setdefault(lane, len(self._lanes)),
                            "args": {"row_ids": row_ids},
                        }
                    )
                start_s += duration_s

    def rendered(self, rows: Sequence[PlannedRow], outcomes: Sequence[RenderedVideo | RowError]) -> None:
        """A batch that the renderer is just done with; a video's timings are its share of the batch."""
        videos = [outcome for outcome in outcomes if isinstance(outcome, RenderedVideo)]
        if videos:
            self.ended(rows, {name: share_s * len(rows) for name, share_s in videos[0].timings.items()})

    def save(self) -> None:
        """Writes the file anew with all that is known so far."""
        if not self._uri:
            return
        with self._lock:
            names = [_name("process_name", 0, self._name)]
            names += [_name("thread_name", tid, lane) for lane, tid in self._lanes.items()]
            body = json.dumps({"traceEvents": names + self._spans, "displayTimeUnit": "ms"}).encode()
            self._storage.write_bytes(self._uri, body)


def _name(what: str, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": os.getpid(), "tid": tid, "args": {"name": name}}
