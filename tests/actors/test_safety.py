"""The safety check: it marks, by the label and the probability of the worst frame, and tells what it cannot use."""

import json

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from actors.safety import SafetyChecker, load_safety_checker
from actors.storage import Storage
from schemas.run import UsageError
from schemas.safety import SafetySettings


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of one that calls a picture red by its first pixels: every patch is brightness of red alone."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    labels = {0: "fine", 1: "red", 2: "other"}
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=0,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=16,
        patch_size=16,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_the_worst_frame_counts_and_nothing_is_flagged_below_the_threshold(classifier, monkeypatch):
    checker = SafetyChecker(classifier, ["red", "other"], 0.6, "cpu")
    seen = []

    def logits(pixels):
        seen.append(len(pixels))
        red = (pixels[:, 0].mean(dim=(1, 2)) > 0.9).float()
        probabilities = torch.stack([0.9 - 0.6 * red, 0.05 + 0.6 * red, torch.full_like(red, 0.05)], dim=1)
        return type("Output", (), {"logits": probabilities.log()})

    monkeypatch.setattr(checker._model, "forward", logits)
    frames = np.zeros((20, 16, 24, 3), np.uint8)
    calm = checker.check(frames)
    assert calm.score == pytest.approx(0.05, abs=1e-6)
    assert not calm.flagged
    frames[-1, ..., 0] = 255
    found = checker.check(frames)
    assert (found.label, found.flagged) == ("red", True)
    assert found.as_columns() == {
        "safety_score": pytest.approx(0.65, abs=1e-6), "safety_label": "red", "safety_flagged": True}  # fmt: skip
    assert seen == [8, 8]
    assert checker.check(frames[-1:]).flagged


def test_the_model_in_the_folder_is_asked(classifier):
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    verdict = SafetyChecker(classifier, ["red"], 0.0, "cpu").check(frames)
    assert 0 < verdict.score < 1
    assert verdict.flagged


def test_what_cannot_be_used_is_told(classifier, tmp_path):
    assert load_safety_checker(Storage(), SafetySettings(), "cpu") is None
    settings = SafetySettings(model=str(classifier), labels=("nsfw",))
    with pytest.raises(UsageError, match="'nsfw': the model's are fine, red, other"):
        load_safety_checker(Storage(), settings, "cpu")
    with pytest.raises(UsageError, match="no transformers image classifier"):
        SafetyChecker(tmp_path, ["red"], 0.5, "cpu")
