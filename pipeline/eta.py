"""The time that a run still takes, from what its rows have taken so far."""

import time
from collections.abc import Mapping
from typing import Any

from pipeline.plan import Plan
from pipeline.prepare import PreparedRun

# What decides how long a row takes beside another, as far as records tell.
_SHAPE = ("mode", "num_frames", "height", "width", "num_inference_steps")
# Until then, actors start: their first units arrive together, and as if they had taken no time.
_LARGEST_START = 0.15
_BURST_S = 0.5  # a unit's records arrive together


class Eta:
    """Counts work: a row weighs what the plan guessed for its shape, and the run measures what a weight takes.

    Args:
        weights: shape -> seconds of one row by the plan's guess; only their proportions matter.
        counts: shape -> rows to render.
        first_rows: rows of the first unit of every actor.
    """

    def __init__(
        self,
        weights: Mapping[tuple[Any, ...], float],
        counts: Mapping[tuple[Any, ...], int],
        first_rows: int = 1,
    ):
        self._weights = weights
        self.rows_left = sum(counts.values())
        self._left = sum(weights[shape] * count for shape, count in counts.items())
        self._start_rows = max(1, min(first_rows, int(_LARGEST_START * self.rows_left)))
        self._rows = 0
        self._began_s = 0.0
        self._measured_rows = 0
        self._measured = 0.0

    @classmethod
    def of(cls, prepared: PreparedRun) -> "Eta":
        """That of a run that begins."""
        weights, counts = _shapes(prepared.plan)
        unit_rows = max(prepared.rows_per_unit.values(), default=1)
        return cls(weights, counts, prepared.compute.actors * unit_rows)

    def finished(self, record: Mapping[str, Any]) -> None:
        """A row came back from an actor."""
        weight = self._weights.get(tuple(record.get(name) for name in _SHAPE), 0.0)
        self._rows += 1
        self.rows_left -= 1
        self._left -= weight
        now = time.monotonic()
        if self._rows <= self._start_rows or (now - self._began_s < _BURST_S and not self._measured_rows):
            self._began_s = now
            return
        self._measured_rows += 1
        self._measured += weight

    @property
    def row_s(self) -> float | None:
        """Seconds per row that was measured; None before the first."""
        return (time.monotonic() - self._began_s) / self._measured_rows if self._measured_rows else None

    @property
    def left_s(self) -> float | None:
        """Seconds that what is left will take; None before anything was measured."""
        if not self._measured:
            return None
        return max(self._left, 0.0) * (time.monotonic() - self._began_s) / self._measured


def _shapes(plan: Plan) -> tuple[dict[tuple[Any, ...], float], dict[tuple[Any, ...], int]]:
    weights: dict[tuple[Any, ...], float] = {}
    counts: dict[tuple[Any, ...], int] = {}
    for bucket, count in plan.buckets.items():
        shape = tuple(getattr(bucket, name) for name in _SHAPE)
        weights[shape] = plan.estimated_s[bucket]
        counts[shape] = counts.get(shape, 0) + count
    return weights, counts
