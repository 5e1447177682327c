"""examples/demo_model/gates: figures, sentences and exit codes, on models that know nothing."""

import json
import sys

import pytest

from examples.demo_model import gate_figures, gates
from examples.demo_model.conditions import GATE_SEED, condition


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gates", *map(str, arguments)])
    return gates.main()


def test_what_is_too_low_is_said():
    figures = {"motion_swap": 0.004, "shape": 0.85, "scene": 0.95, "motion": 0.2, "more": 0}
    assert gates.problems("base", figures) == [
        "base: motion_swap is 0.004; at least 0.05 is needed",
        "base: motion is 0.2; at least 0.8 is needed",
    ]
    assert gates.problems("base", figures | {"motion_swap": 0.2, "motion": 0.9}) == []


def test_every_stage_measures_what_its_gate_asks_for():
    assert set(gates.MEASURES) == set(gates.LEAST)


@pytest.mark.parametrize("stage", ["base", "style", "temporal"])
def test_a_model_that_knows_nothing_does_not_pass(stage, monkeypatch, capsys, small_model, random_judges):
    given = ("--model", small_model, "--judges", random_judges, "--count", 4)
    assert run(monkeypatch, stage, *given) == 1
    told = capsys.readouterr()
    assert f"gate of {stage}: not passed" in told.out
    assert "at least" in told.err
    for name in gates.LEAST[stage]:
        assert f"\n{name} " in f"\n{told.out}"


def test_autoencoder_is_measured_in_dB_and_by_the_judges(small_model, random_judges):
    found = gate_figures.autoencoder_figures(small_model, 2, random_judges)
    assert set(gates.LEAST["autoencoder"]) <= set(found)
    assert 0 < found["psnr_styled"] < 28


def test_what_trainings_have_stored_is_read(tmp_path, monkeypatch, random_judges, capsys):
    (tmp_path / "clip.json").write_text(
        json.dumps({"command": "x", "probe_family": 0.9, "probe_palette": 0.9, "spread_motion_share": 1.2})
    )
    assert run(monkeypatch, "clip", "--model", tmp_path) == 0
    assert "gate of clip: passed" in capsys.readouterr().out
    assert run(monkeypatch, "judges", "--model", random_judges) == 1
    assert "judges: shape is 0.5; at least 0.95 is needed" in capsys.readouterr().err


def test_a_folder_without_figures_is_refused(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "judges", "--model", tmp_path) == 2
    assert "it must hold metrics.json" in capsys.readouterr().err


def test_an_untrained_model_is_indifferent_to_the_motion_word(small_model):
    pipeline = gate_figures.load(small_model)
    rise = gate_figures.motion_swap(pipeline, [condition(GATE_SEED, i, "neutral") for i in range(3)])
    assert rise != 0
    assert abs(rise) < 0.02


def test_frames_do_not_depend_on_the_batch(small_model, monkeypatch):
    pipeline = gate_figures.load(small_model)
    asked = [condition(GATE_SEED, i) for i in range(3)]
    together = gate_figures.render(pipeline, asked, styled=True, mode="video")
    monkeypatch.setattr(gate_figures, "_BATCH", 2)
    apart = gate_figures.render(pipeline, asked, styled=True, mode="video")
    assert together.shape == (3, 4, 64, 64, 3)
    assert abs(together.astype(int) - apart).max() <= 1
