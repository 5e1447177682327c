"""The table of quality against speed: what is lost, how sure that is, and that nothing is measured twice."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import quality_speed
from benchmarks.quality_speed import CONFIGURATIONS
from benchmarks.quality_speed_table import Measured, figures, loss_bound, markdown
from examples.demo_model.scoring import JUDGED, SIMILARITIES


def measured(wall_s, right_N):
    scores = dict.fromkeys(JUDGED, np.array(right_N)) | dict.fromkeys(SIMILARITIES, np.array(right_N) * 0.5)
    return Measured(wall_s, [second / 2 for second in wall_s], scores)


def test_the_bound_of_a_loss():
    before = np.array([True] * 300 + [False] * 100)
    # 20 lost, 10 won: (20.5 - 10.5) / 402 + 1.645 sqrt(31 - 10^2 / 402) / 402, by hand.
    after = before.copy()
    after[:20], after[300:310] = False, True
    assert loss_bound(before, after) == pytest.approx(0.047568, abs=1e-6)
    assert 0 < loss_bound(before, before) < 0.005
    assert loss_bound(after, before) < 0.01
    with pytest.raises(ValueError, match="400 videos before and 2 after"):
        loss_bound(before, after[:2])


def test_configurations_are_compared_on_the_rows_that_both_have():
    found = {
        "quality": measured([4.0, 6.0, 5.0], [True] * 6),
        "fast": measured([1.0, 2.0, 1.0], [True] * 4 + [False] * 2),
        "other": measured([2.0], [True, False]),
    }
    lines = markdown(found, {name: name for name in found}).splitlines()
    assert [line.count("|") for line in lines] == [lines[0].count("|")] * 5
    assert "| fast | 6 | 1.000 | 4.00 | 0.500 | 4.00 |" in lines[3]
    assert "| other | 2 | 2.000 | 2.00 | 1.000 | 2.00 |" in lines[4]
    speedup, shape, style = figures(found)
    assert (speedup.name, speedup.value, speedup.spread) == ("fast_speedup", 4.0, (3.0, 5.0))
    assert (shape.name, style.name) == ("fast_shape_loss_bound", "fast_style_loss_bound")
    assert shape.value == shape.spread[1] > shape.spread[0] == pytest.approx(1 / 3)
    assert figures({"fast": found["fast"]}) == []


@pytest.fixture
def options(tiny_model, tmp_path, monkeypatch):
    """A run on the smallest model, with judges that guess."""
    monkeypatch.setattr(quality_speed, "load_clip", lambda folder: None)
    monkeypatch.setattr(quality_speed.Judges, "load", lambda folder: None)
    monkeypatch.setattr(quality_speed, "scores", lambda frames, *_: measured([], [True] * len(frames)).scores)
    return argparse.Namespace(
        model=tiny_model,
        output=tmp_path / "out",
        count=3,
        others=2,
        configurations=["quality", "fast", "vae_slicing"],
        batch_size=2,
        threads=1,
        judges=None,
        evaluation_clip=None,
    )


def test_what_is_finished_is_not_measured_again(options, monkeypatch, capsys):
    quality_speed.measure(options)
    said = capsys.readouterr().out
    assert "preset `fast`" in said
    assert {json.loads(line)["name"] for line in said.splitlines() if line.startswith("{")} == {
        "fast_speedup", "fast_shape_loss_bound", "fast_style_loss_bound"}  # fmt: skip
    asked = json.loads((options.output / "fast" / "asked.json").read_text())
    assert asked["settings"]["scheduler"] == "unipc"
    batches = {
        name: sorted(path.stem for path in (options.output / name).glob("*.npz")) for name in CONFIGURATIONS
    }
    assert batches.pop("quality") == batches.pop("fast") == ["0000", "0002"]
    assert batches.pop("vae_slicing") == ["0000"]
    assert not any(batches.values())
    assert (options.output / "quality.png").is_file()

    monkeypatch.setattr(quality_speed, "Renderer", None)
    quality_speed.measure(options)
    assert (options.output / "table.md").read_text() in said
    options.batch_size = 4
    with pytest.raises(ValueError, match="quality was rendered otherwise"):
        quality_speed.measure(options)
