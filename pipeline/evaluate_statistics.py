"""Bootstrap intervals of means, and differences of two runs on the same rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_LEVEL = 0.95
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, over `count` values. Without values everything is NaN."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "–"
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Difference:
    """How one metric differs between two runs on the same rows, second minus first."""

    first: float
    second: float
    difference: Interval
    effect_size: (
        float  # mean difference in its own standard deviations (Cohen's d of pairs); NaN if that is 0
    )
    higher: float  # share of rows in which the second is higher; ties count half

    @property
    def is_significant(self) -> bool:
        return self.difference.low > 0 or self.difference.high < 0


def mean_interval(
    values: np.ndarray, groups: Sequence[Sequence[object]] = (), resamples: int = 2_000, seed: int = 0
) -> Interval:
    """The mean of the finite values with a percentile bootstrap interval.

    Args:
        groups: what values share, such as prompt and style, one sequence of labels each. The levels of each are
            resampled instead of the values (Owen's pigeonhole bootstrap, Annals of Applied Statistics 2007), so
            that the interval is one for other prompts and styles too, not for other noise alone. It errs on the
            wide side.
    """
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    values = values[finite]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan, 0)
    codes = [np.unique(np.asarray(labels, dtype=str)[finite], return_inverse=True)[1] for labels in groups]
    means = []
    for weights in _weights(codes, len(values), resamples, np.random.default_rng(seed)):
        total = weights.sum(axis=1)
        means.append((weights @ values)[total > 0] / total[total > 0])
    low, high = np.quantile(np.concatenate(means), ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[Sequence[object]] = (),
    resamples: int = 2_000,
    seed: int = 0,
) -> Difference:
    """Second minus first, row by row; a row that lacks either counts for nothing."""
    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    finite = np.isfinite(difference)
    found = difference[finite]
    if not len(found):
        return Difference(np.nan, np.nan, mean_interval(found), np.nan, np.nan)
    spread = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return Difference(
        float(np.asarray(first, dtype=float)[finite].mean()),
        float(np.asarray(second, dtype=float)[finite].mean()),
        mean_interval(difference, groups, resamples, seed),
        float(found.mean()) / spread if spread else np.nan,
        float(((found > 0) + 0.5 * (found == 0)).mean()),
    )


def _weights(
    codes: list[np.ndarray], count: int, resamples: int, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """How often each value is drawn, [some resamples, count] at a time."""
    # A label that all values share, or none, is no group.
    shared = [code for code in codes if 1 < code.max() + 1 < count] or [np.arange(count)]
    step = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        weights = np.ones((rows, count))
        for code in shared:
            levels = int(code.max()) + 1
            weights *= random.multinomial(levels, np.full(levels, 1 / levels), size=rows)[:, code]
        yield weights
