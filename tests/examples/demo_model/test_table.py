"""examples/demo_model/table: from scores to figures."""

import json

import numpy as np
import pytest

from examples.demo_model import table
from examples.demo_model.scoring import JUDGED, SIMILARITIES


def scores(n=40, **shares):
    found = {name: np.arange(n) < round(shares.get(name, 0.5) * n) for name in JUDGED}
    return found | {name: np.linspace(0.2, 0.4, n) for name in SIMILARITIES}


def test_content_loss_is_without_style_minus_with():
    lost = table.content_loss(
        scores(shape=0.6, scene=0.9, motion=0.5), scores(shape=0.9, scene=0.9, motion=0.7)
    )
    assert lost["shape"].value == pytest.approx(0.3)
    assert lost["all"].value == pytest.approx((0.3 + 0 + 0.2) / 3)
    assert lost["all"].low < lost["all"].value < lost["all"].high


def test_content_loss_needs_the_same_videos():
    with pytest.raises(ValueError, match="40 videos with style and 30 without"):
        table.content_loss(scores(), scores(30))


def test_figures_have_the_names_of_the_project():
    everything = {
        name: table.estimates(scores(family=share))
        for name, share in {"full": 0.8, "no_adapter": 0.1, "shuffled": 0.2}.items()
    }
    lost = table.content_loss(scores(), scores())
    lines = [json.loads(one.as_json_line()) for one in table.figures(everything, lost)]
    found = {line["name"]: line for line in lines}
    assert set(found) == {
        *("shape_accuracy", "scene_accuracy", "motion_accuracy", "style_accuracy", "palette_accuracy"),
        *("style_accuracy_no_adapter", "style_accuracy_shuffled", "content_loss"),
    }
    assert found["style_accuracy"]["value"] == 0.8
    assert found["style_accuracy"]["spread"][0] < 0.8 < found["style_accuracy"]["spread"][1]
    assert found["style_accuracy_shuffled"]["value"] == 0.2
    assert found["content_loss"] == {
        "name": "content_loss",
        "value": 0,
        "unit": "share",
        "n": 40,
        "spread": [0, 0],
    }


def test_a_figure_that_was_not_measured_is_absent():
    names = [one.name for one in table.figures({"full": table.estimates(scores())}, {})]
    assert "style_accuracy_shuffled" not in names
    assert "content_loss" not in names


def test_the_table_has_a_row_per_variant_and_a_cell_per_score():
    text = table.markdown({"full": table.estimates(scores(shape=1.0))}, {"full": "full model"})
    head, rule, row = text.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 10
    assert row.startswith("| full model | 40 | 1.00 [0.91, 1.00] |")
