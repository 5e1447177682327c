"""The time that is left, against simulated runs whose end is known."""

import heapq
import random

import pytest

from pipeline import eta
from pipeline.eta import Eta

NAMES = ("mode", "num_frames", "height", "width", "num_inference_steps")
SMALL, LARGE = ("video", 16, 256, 256, 25), ("video", 16, 512, 512, 50)


def simulated(rows, actors, unit_rows, seed):
    """(moment, row) of every row that comes back, units in the order of the rows, loading of models first."""
    chance = random.Random(seed)
    units = [rows[start : start + unit_rows] for start in range(0, len(rows), unit_rows)]
    free = [(chance.uniform(20, 40), actor) for actor in range(actors)]
    arrivals = []
    for unit in units:
        now, actor = heapq.heappop(free)
        now += sum(
            chance.lognormvariate(0, 0.25) * {SMALL: 3.0, LARGE: 26.0}.get(row, 0.1) for row in unit
        )  # not quite in the proportion of the weights
        heapq.heappush(free, (now, actor))
        arrivals += [(now, row) for row in unit]
    return sorted(arrivals)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("small", "large", "actors", "unit_rows"),
    [(400, 0, 1, 5), (400, 0, 4, 5), (640, 0, 8, 5), (200, 200, 4, 4), (0, 60, 2, 1), (300, 300, 8, 3)],
)
def test_it_is_right_within_a_quarter_once_a_fifth_is_done(
    monkeypatch, small, large, actors, unit_rows, seed
):
    now = [0.0]
    monkeypatch.setattr(eta.time, "monotonic", lambda: now[0])
    rows = [SMALL] * small + [LARGE] * large
    left = Eta({SMALL: 1.0, LARGE: 8.0}, {SMALL: small, LARGE: large}, actors * unit_rows)
    arrivals = simulated(rows, actors, unit_rows, seed)
    end = arrivals[-1][0]
    checked = 0
    for index, (moment, row) in enumerate(arrivals):
        now[0] = moment
        left.finished(dict(zip(NAMES, row, strict=True)))
        done = (index + 1) / len(rows)
        if 0.2 <= done <= 0.9 and (index + 1 == len(arrivals) or arrivals[index + 1][0] > moment):
            # Of rows of two kinds, the first fifth says less: only once both were seen it must be as good.
            if large and small and done < small / len(rows) + 0.2:
                continue
            checked += 1
            assert left.left_s == pytest.approx(end - moment, rel=0.25, abs=0.05 * end)
    assert checked
    assert left.rows_left == 0


def test_nothing_is_said_before_anything_was_measured(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(eta.time, "monotonic", lambda: now[0])
    left = Eta({SMALL: 1.0}, {SMALL: 4})
    assert (left.left_s, left.row_s) == (None, None)
    for _ in range(2):  # a unit of two rows: they arrive together
        left.finished(dict(zip(NAMES, SMALL, strict=True)))
    assert left.left_s is None
    now[0] += 8
    left.finished(dict(zip(NAMES, SMALL, strict=True)))
    assert (left.left_s, left.row_s) == (8.0, 8.0)
