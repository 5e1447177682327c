"""examples/demo_model: the judges, as stored, and their training at a tiny size."""

import json
import sys

import numpy as np
import pytest
import torch

from examples.demo_model import train_judges
from examples.demo_model.intervals import wilson
from examples.demo_model.judges import NETWORKS, VALUES, WEIGHTS, Judges, motion_input, new_network
from examples.demo_model.train_judges import demo_clips, measure, worsened

# The first 60 of the clips that metrics.json was measured on.
SAMPLE = 60
TOLERANCE = 0.07


@pytest.fixture(scope="module")
def judges():
    if not (WEIGHTS / "metrics.json").is_file():
        pytest.skip("the judges are not trained yet: python -m examples.demo_model.train_judges")
    return Judges.load()


@pytest.fixture(scope="module")
def clips():
    return demo_clips(SAMPLE, "held-out")


@pytest.fixture(scope="module")
def stored(judges):
    return json.loads((WEIGHTS / "metrics.json").read_text())["figures"]


def test_stored_judges_reproduce_their_stated_accuracy(judges, clips, stored):
    found = measure(judges, clips)
    assert set(found) == set(stored) == set(VALUES)
    for name, figure in found.items():
        assert abs(figure["accuracy"] - stored[name]["accuracy"]) < TOLERANCE, name
        assert abs(figure["accuracy_worsened"] - stored[name]["accuracy_worsened"]) < TOLERANCE, name


def test_stated_accuracies_pass_the_gate(stored):
    for name, figure in stored.items():
        assert figure["n"] >= 500, name
        assert figure["accuracy"] >= 0.95, name
        assert (figure["low"], figure["high"]) == pytest.approx(
            wilson(round(figure["accuracy"] * figure["n"]), figure["n"]), abs=2e-4
        )


def test_judges_are_small(judges):
    sizes = [(WEIGHTS / f"{name}.safetensors").stat().st_size for name in NETWORKS]
    assert max(sizes) <= 1.5e6
    assert sum(sizes) <= 5e6


def test_drawing_and_motion_do_not_hang_on_colours(judges, clips):
    frames_NTHWC, _ = clips
    plain, swapped = (judges.probabilities(x) for x in (frames_NTHWC, frames_NTHWC[..., [2, 0, 1]]))
    for name in ("shape", "scene", "family", "motion"):
        agree = plain[name].argmax(1) == swapped[name].argmax(1)
        assert agree.float().mean() > 0.9, name
    assert (plain["palette"].argmax(1) == swapped["palette"].argmax(1)).float().mean() < 0.3


def test_motion_is_told_by_the_movement_and_not_by_the_place(judges, clips, stored):
    frames_NTHWC, labels = clips
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    names = [VALUES["motion"][number] for number in labels["motion"]]
    for changed, wanted in (
        (frames_NTHWC[:, ::-1], [opposite[name] for name in names]),
        (frames_NTHWC[:, [-1] * 8], ["none"] * SAMPLE),
        (frames_NTHWC[:, [0] * 8], ["none"] * SAMPLE),
    ):
        seen = judges.probabilities(changed)["motion"].argmax(1).tolist()
        assert np.mean([VALUES["motion"][i] == name for i, name in zip(seen, wanted, strict=True)]) > 0.95
    assert min(stored["motion"]["accuracy_backwards"], stored["motion"]["accuracy_standing"]) >= 0.95


def test_training_shows_clips_backwards_and_standing():
    frames_NTHWC = np.zeros((600, 4, 1, 1, 3), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None]
    motions_N = np.arange(600) % 4
    seen_NTHWC, found_N = train_judges.told_by_change(frames_NTHWC, motions_N, np.random.default_rng(0))
    order_NT = seen_NTHWC[:, :, 0, 0, 0]
    forwards, backwards = ((order_NT == one).all(1) for one in ([0, 1, 2, 3], [3, 2, 1, 0]))
    standing = (order_NT == order_NT[:, :1]).all(1)
    assert forwards.sum() + backwards.sum() + standing.sum() == 600
    assert 160 < backwards.sum() < 240
    assert 70 < standing.sum() < 130
    assert (found_N[forwards] == motions_N[forwards]).all()
    assert (found_N[backwards] == motions_N[backwards] + np.array([1, -1, 1, -1])[motions_N[backwards]]).all()
    assert (found_N[standing] == VALUES["motion"].index("none")).all()


def test_answers_are_of_the_clip_alone_and_of_any_length_and_size(judges, clips):
    frames_NTHWC, _ = clips
    together = judges.probabilities(frames_NTHWC[:3])
    alone = judges.probabilities(frames_NTHWC[1:2])
    for name, shares in together.items():
        torch.testing.assert_close(shares[1:2], alone[name], rtol=0, atol=1e-5)
    enlarged = frames_NTHWC[0].repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=0)
    assert judges.names(enlarged) == judges.names(frames_NTHWC[0])


def test_frames_of_another_kind_are_refused(judges):
    with pytest.raises(ValueError, match=r"frames are float64 of shape \(1, 8, 64, 64, 3\)"):
        judges.probabilities(np.zeros((1, 8, 64, 64, 3)))


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"it must hold drawing\.safetensors"):
        Judges.load(tmp_path)


def test_neutral_clips_are_a_family_and_have_no_palette(clips):
    _, labels = clips
    neutral = labels["family"] == VALUES["family"].index("flat")
    assert neutral.sum() == SAMPLE // 4
    assert len(set(labels["family"])) == len(VALUES["family"])
    assert np.array_equal(neutral, labels["palette"] == train_judges.UNKNOWN)


def test_motion_sees_the_first_and_the_last_frame():
    frames_NTCHW = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 3, 2, 2)
    assert motion_input(frames_NTCHW)[0, ::3, 0, 0].tolist() == [0, 2, 5, 7]


def test_worsening_keeps_the_range_and_leaves_some_batches_alone():
    pixels = torch.rand(2, 3, 3, 64, 64)
    found = [worsened(pixels, np.random.default_rng(seed)) for seed in range(20)]
    changed = [not torch.equal(one, pixels) for one in found]
    assert 0 < sum(changed) < 20
    assert all(one.shape == pixels.shape and one.min() >= 0 and one.max() <= 1 for one in found)


def test_training_writes_networks_and_figures(monkeypatch, tmp_path):
    arguments = ["--output", tmp_path / "judges", "--work", tmp_path / "work", "--pool", 24, "--tested", 12]
    monkeypatch.setattr(sys, "argv", ["train_judges", *map(str, [*arguments, "--steps", 4, "--batch", 8])])
    assert train_judges.main() == 0
    facts = json.loads((tmp_path / "judges/metrics.json").read_text())
    assert facts["figures"]["palette"]["n"] == 9
    assert "--pool 24" in facts["command"]
    assert set(Judges.load(tmp_path / "judges").names(np.zeros((8, 64, 64, 3), np.uint8))) == set(VALUES)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_learns_what_it_is_for(name):
    found = new_network(name).eval()(torch.rand(2, 12 if name == "motion" else 3, 64, 64))
    assert {label: tuple(logits.shape) for label, logits in found.items()} == {
        label: (2, len(VALUES[label])) for label in NETWORKS[name]
    }
