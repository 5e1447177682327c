"""From timings and scores of each configuration to a table, against the preset `quality` video by video.

Shapes: N videos.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.figures import Figure
from examples.demo_model.scoring import JUDGED, SIMILARITIES, Scores

REFERENCE = "quality"
_Z_ONE_SIDED = 1.645
_LOSSES = {"shape": "shape", "family": "style"}  # what may not be lost, and its name in figures


@dataclass(frozen=True)
class Measured:
    """One configuration: seconds per video of every batch, wall and processor, and every video's scores."""

    wall_s: list[float]
    cpu_s: list[float]
    scores: Scores

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)

    @property
    def median_cpu_s(self) -> float:
        return statistics.median(self.cpu_s)


def speedups(before_s: list[float], after_s: list[float]) -> list[float]:
    """How many times faster, batch by batch of the rows that both have rendered."""
    return [before / after for before, after in zip(before_s, after_s, strict=False)]


def paired(reference: Measured, other: Measured, score: str) -> tuple[np.ndarray, np.ndarray]:
    """One score of the videos that both have rendered."""
    both = min(len(reference.scores[score]), len(other.scores[score]))
    return reference.scores[score][:both], other.scores[score][:both]


def loss_bound(before_N: np.ndarray, after_N: np.ndarray) -> float:
    """Upper end of the one-sided 95 % interval of the accuracy lost, paired by video.

    Wald's interval with half a video added to each cell of the two by two table (Agresti and Min, 2005), which
    does not shrink to nothing where few videos differ.

    Args:
        before_N, after_N: bool, whether each video is right.

    Raises:
        ValueError: they are not of the same videos, or of none.
    """
    if len(before_N) != len(after_N) or not len(before_N):
        raise ValueError(
            f"{len(before_N)} videos before and {len(after_N)} after: the same, at least 1, are needed"
        )
    lost = np.count_nonzero(before_N & ~after_N) + 0.5
    won = np.count_nonzero(~before_N & after_N) + 0.5
    n = len(before_N) + 2
    variance = (lost + won - (lost - won) ** 2 / n) / n**2
    return (lost - won) / n + _Z_ONE_SIDED * math.sqrt(variance)


def markdown(found: Mapping[str, Measured], titles: Mapping[str, str]) -> str:
    """A row per configuration; ratios and losses are against `quality`, where that was measured."""
    shown = [*JUDGED, *SIMILARITIES]
    heads = ["configuration", "n", "s per video", "times faster", "CPU s", "times", *shown]
    heads += [f"{name} lost at most" for name in _LOSSES]
    lines = [heads, ["---"] * len(heads)]
    reference = found.get(REFERENCE)
    for name, one in found.items():
        faster, less = _ratios(reference, one) if reference else ("", "")
        cells = [
            titles[name],
            str(len(one.scores[shown[0]])),
            f"{one.median_s:.3f}",
            faster,
            f"{one.median_cpu_s:.3f}",
            less,
        ]
        cells += [f"{one.scores[score].mean():.3f}" for score in shown]
        for score in _LOSSES:
            is_paired = reference is not None and one is not reference
            cells.append(f"{loss_bound(*paired(reference, one, score)):.3f}" if is_paired else "")
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _ratios(reference: Measured, one: Measured) -> tuple[str, str]:
    pairs = ((reference.wall_s, one.wall_s), (reference.cpu_s, one.cpu_s))
    wall, cpu = (f"{statistics.median(speedups(*pair)):.2f}" for pair in pairs)
    return wall, cpu


def figures(found: Mapping[str, Measured]) -> list[Figure]:
    """Of the preset `fast` against `quality`; none where one of them was not measured."""
    if not {REFERENCE, "fast"} <= found.keys():
        return []
    reference, fast = found[REFERENCE], found["fast"]
    made = [Figure.of_repeats("fast_speedup", "ratio", speedups(reference.wall_s, fast.wall_s))]
    for score, called in _LOSSES.items():
        before_N, after_N = paired(reference, fast, score)
        bound, mean = loss_bound(before_N, after_N), float(before_N.mean() - after_N.mean())
        made.append(Figure(f"fast_{called}_loss_bound", bound, "share", len(before_N), (mean, bound)))
    return made
