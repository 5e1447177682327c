"""95 % intervals: of a share by Wilson's score, of a mean by bootstrap."""

import math
from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a share (E. B. Wilson, 1927).

    Raises:
        ValueError: nothing was counted, or more than there is.
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"right = {right} of n = {n}: n must be at least 1, and right between 0 and n")
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a mean (B. Efron, 1979); the same for the same values.

    Raises:
        ValueError: there are no values.
    """
    found = np.asarray(values, float)
    if found.size == 0:
        raise ValueError("values are empty: at least one is needed")
    rng = np.random.default_rng(seed)
    means = [found[rng.integers(len(found), size=len(found))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
