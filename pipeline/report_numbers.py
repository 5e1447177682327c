"""What the report says in numbers, from a few columns of all records."""

import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.finished import FinishedOutput
from schemas.record import RECORD_SCHEMA, TIMING_NAMES, Status

SCORES = {"clip_text": "CLIP-Text", "clip_style": "CLIP-Style", "clip_temp": "CLIP-Temp"}
STAGES = {name: name.removesuffix("_s") for name in TIMING_NAMES}
DEVICE_STAGES = ("condition_s", "denoise_s", "decode_s", "score_s")
_AFTER_DEVICE = ("encode_s", "upload_s")
_TEXTS = ("status", "error_class", "run_id", "node", "device")
_NUMBERS = ("row_key", "finished_at", "size_bytes", "duration_s", *STAGES, *SCORES)
_COLUMNS = (*_TEXTS, "row_key", "finished_at", "size_bytes", "duration_s", "timings", *SCORES)
_NO_RECORDS = pa.RecordBatch.from_pylist([], schema=RECORD_SCHEMA)
_BIN_WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_BINS = 40


@dataclass(frozen=True)
class Timeline:
    """How one run went, in equal steps of time."""

    run_id: str
    edges_s: np.ndarray  # seconds since the run's first video began, one more than steps
    videos: np.ndarray  # finished per step
    stage_s: dict[str, np.ndarray]  # mean seconds per video and stage; NaN where none finished
    busy: dict[str, np.ndarray]  # by node: devices at work on average
    actors: int | None  # that the run had

    @property
    def span_s(self) -> float:
        return float(self.edges_s[-1])

    @property
    def step_s(self) -> float:
        return float(self.edges_s[1])

    @property
    def utilisation(self) -> float | None:
        """Share of the actors' time, from the first video's begin to the last one's end, at work on the device."""
        if not self.actors:
            return None
        return float(sum(np.sum(share) for share in self.busy.values())) / (
            self.actors * (len(self.edges_s) - 1)
        )


class ReportNumbers:
    """Columns of all records as arrays, and what is counted from them."""

    def __init__(self, output: FinishedOutput):
        parts = [_part(batch) for batch in output.batches(_COLUMNS)] or [_part(_NO_RECORDS)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in (*_TEXTS, *_NUMBERS)}
        del parts
        self.records = len(found["row_key"])
        self.status, self.error_class = found["status"], found["error_class"]
        self.run_id, self.node, self.device = found["run_id"], found["node"], found["device"]
        self.finished_s: np.ndarray = found["finished_at"]
        self.scores = {name: found[name] for name in SCORES}
        self.stage_s = {name: found[name] for name in STAGES}
        self.device_s: np.ndarray = sum(np.nan_to_num(self.stage_s[name]) for name in DEVICE_STAGES)
        self.ok = self.status == Status.OK
        # Records may share a video: what it took, and how large it is, counts once.
        self.is_first = np.zeros(self.records, dtype=bool)
        ok = np.flatnonzero(self.ok)
        self.is_first[ok[np.unique(found["row_key"][ok], return_index=True)[1]]] = True
        self.size_bytes = float(np.nansum(found["size_bytes"][self.is_first], dtype=float))
        self.length_s = float(np.nansum(found["duration_s"][self.is_first], dtype=float))

    def statuses(self) -> dict[str, int]:
        """Records by status, in the order of `Status`."""
        counts = Counter(self.status.tolist())
        return {status.value: counts[status.value] for status in Status if counts[status.value]}

    def errors(self) -> list[tuple[str, str, int, np.ndarray]]:
        """(status, error class, records, positions of the first three) of what is not ok, most frequent first."""
        groups: dict[tuple[str, str], list[int]] = {}
        for position in np.flatnonzero(~self.ok).tolist():
            groups.setdefault((self.status[position], self.error_class[position]), []).append(position)
        ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        return [(*group, len(found), np.array(found[:3])) for group, found in ordered]

    def quantiles(self, name: str, at: tuple[float, ...] = (0.05, 0.5, 0.95)) -> list[float] | None:
        """Quantiles of one score over the ok records; None where nothing is scored."""
        values = self.scores[name][self.ok]
        values = values[np.isfinite(values)]
        return [float(value) for value in np.quantile(values, at)] if len(values) else None

    def runs(self) -> list[dict[str, Any]]:
        """The runs that made the videos, earliest first."""
        found = []
        for run_id in np.unique(self.run_id):
            mine = self.is_first & (self.run_id == run_id)
            failed = (self.run_id == run_id) & ~self.ok
            times = self.finished_s[mine | failed]
            if not len(times):
                continue
            found.append(
                {
                    "run_id": str(run_id),
                    "videos": int(mine.sum()),
                    "failed": int(failed.sum()),
                    "first_s": float(times.min()),
                    "last_s": float(times.max()),
                    "device_s": float(self.device_s[mine].sum(dtype=float)),
                    "places": dict(
                        Counter(zip(self.node[mine].tolist(), self.device[mine].tolist(), strict=True))
                    ),
                }
            )
        return sorted(found, key=lambda run: (run["first_s"], run["run_id"]))

    def timeline(self, actors: int | None, run_id: str) -> Timeline | None:
        """How a run went; None if it made no video."""
        mine = self.is_first & (self.run_id == run_id)
        if not mine.any():
            return None
        end = self.finished_s[mine]
        after = sum(np.nan_to_num(self.stage_s[name][mine]) for name in _AFTER_DEVICE)
        work_end, work_s = end - after, self.device_s[mine]
        start = float((work_end - work_s).min())
        step = _step_s(float(end.max()) - start)
        edges = np.arange(0, np.ceil((end.max() - start) / step) + 1) * step
        edges = edges if len(edges) > 1 else np.array([0.0, step])
        place = np.clip(np.digitize(end - start, edges) - 1, 0, len(edges) - 2)
        videos = np.bincount(place, minlength=len(edges) - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            stages = {
                name: np.bincount(place, np.nan_to_num(values[mine]), minlength=len(videos)) / videos
                for name, values in self.stage_s.items()
            }
        busy = {}
        for node in np.unique(self.node[mine]):
            here = self.node[mine] == node
            done = [
                np.clip(edge - (work_end - work_s - start)[here], 0, work_s[here]).sum() for edge in edges
            ]
            busy[str(node)] = np.diff(done) / step
        return Timeline(run_id, edges, videos, stages, busy, actors)

    def to_list(self, most: int) -> np.ndarray:
        """Positions of the records that the page lists: all, or failed, worst, slowest ones and an even choice."""
        if self.records <= most:
            return np.arange(self.records)
        few = max(1, most // 20)
        chosen = [np.flatnonzero(~self.ok)[: most // 4]]
        for values in (*self.scores.values(), -self.device_s):
            candidates = np.flatnonzero(self.ok & np.isfinite(values))
            chosen.append(candidates[np.argsort(values[candidates], kind="stable")][:few])
        needed = np.unique(np.concatenate(chosen))[:most]
        others = np.setdiff1d(np.arange(self.records), needed)
        rest = others[np.linspace(0, len(others) - 1, most - len(needed)).astype(int)]
        return np.union1d(needed, rest)


def _part(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Some records as arrays, about 110 bytes each. A row_key is its first 64 bits."""
    timings = batch["timings"]
    part = {name: _texts(batch[name]) for name in _TEXTS}
    part |= {name: _floats(pc.struct_field(timings, name)) for name in STAGES}
    part |= {name: _floats(batch[name]) for name in (*SCORES, "size_bytes", "duration_s")}
    part["finished_at"] = batch["finished_at"].cast(pa.int64()).to_numpy() / 1000
    part["row_key"] = np.array(
        [int(key[:16], 16) if key else 0 for key in batch["row_key"].to_pylist()], np.uint64
    )
    return part


def _texts(values: pa.Array) -> np.ndarray:
    """A column of few different texts, each kept once; null is ""."""
    encoded = values.fill_null("").dictionary_encode()
    texts = np.array([sys.intern(text) for text in encoded.dictionary.to_pylist()], dtype=object)
    return texts[encoded.indices.to_numpy()]


def _floats(values: pa.Array) -> np.ndarray:
    floats: np.ndarray = values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)
    return floats


def _step_s(span_s: float) -> float:
    return float(next((width for width in _BIN_WIDTHS_S if span_s / width <= _BINS), np.ceil(span_s / _BINS)))
