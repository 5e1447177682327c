"""The JSON lines that benchmarks end with: scripts read them."""

import json

import pytest

from benchmarks.figures import Figure


def test_a_figure_is_the_median_with_its_spread() -> None:
    line = Figure.of_repeats("pipeline_efficiency", "ratio", [0.94, 0.91, 0.93004]).as_json_line()
    assert "\n" not in line
    assert json.loads(line) == {
        "name": "pipeline_efficiency",
        "value": 0.93,
        "unit": "ratio",
        "n": 3,
        "spread": [0.91, 0.94],
    }


def test_a_figure_that_was_not_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match=r"'train_s'.*at least one"):
        Figure.of_repeats("train_s", "s", [])
