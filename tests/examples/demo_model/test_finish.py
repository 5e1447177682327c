"""examples/demo_model/finish and card: the model as it is shipped."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from examples.demo_model import finish, table
from examples.demo_model.card import training_facts, with_measured
from examples.demo_model.scoring import JUDGED, SIMILARITIES
from stylecrafter import StyleCrafterPipeline
from stylecrafter.model_directory import compute_fingerprint, read_fingerprint


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["finish", *map(str, arguments)])
    return finish.main()


@pytest.fixture
def shipped(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "_SHARD_BYTES", 300_000)
    assert run(monkeypatch, "--model", small_model, "--output", tmp_path / "shipped") == 0
    return tmp_path / "shipped"


@pytest.fixture
def evaluation(shipped, tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    scores = {name: np.arange(8) < 6 for name in JUDGED} | {name: np.full(8, 0.3) for name in SIMILARITIES}
    how = {
        "command": "python -m examples.demo_model.evaluate",
        "models": {"full": read_fingerprint(shipped)},
        "judges": {"shape": {"accuracy": 0.98}},
        "titles": {"full": "full model"},
    }
    metrics = table.metrics({"full": table.estimates(scores)}, table.content_loss(scores, scores), how)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    Image.new("RGB", (8, 8)).save(folder / "contact_sheet.png")
    return folder


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "base"
    (folder / "run").mkdir(parents=True)
    config = {"stage": "base", "image_batch": 16, "video_batch": 4, "image_share": 0.25}
    config |= {"micro_batches_per_step": 1, "learning_rate": 0.001}
    (folder / "run" / "train.json").write_text(json.dumps(config))
    lines = [{"step": 10 * i, "loss": 1 / i, "step_s": 36.0} for i in range(1, 21)]
    lines.append({"step": 200, "val_loss_video": 0.25})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_it_is_the_same_model_in_half_precision_and_small_files(small_model, shipped):
    assert read_fingerprint(shipped) == compute_fingerprint(shipped)
    assert len(list((shipped / "unet").glob("*.safetensors"))) > 1
    for file in shipped.glob("*/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values() if tensor.is_floating_point()} == {
            torch.float16
        }
    before, after = (
        StyleCrafterPipeline.from_pretrained(x, dtype=torch.float32) for x in (small_model, shipped)
    )
    weights = after.unet.state_dict()
    for name, tensor in before.unet.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)
    assert before.generation_config == after.generation_config
    reference = Image.new("RGB", (64, 64), "red")
    frames = [one("a star", [reference], seed=3).frames.astype(int) for one in (before, after)]
    assert abs(frames[0] - frames[1]).mean() < 2


def test_the_tokenizer_is_smaller_and_the_same(small_model, shipped):
    path = "tokenizer/tokenizer.json"
    assert (shipped / path).stat().st_size < 0.8 * (small_model / path).stat().st_size
    assert json.loads((shipped / path).read_text()) == json.loads((small_model / path).read_text())


def test_without_an_evaluation_the_card_says_so(shipped):
    card = (shipped / "README.md").read_text()
    assert "Not measured yet." in card
    assert "license: apache-2.0" in card
    assert not (shipped / "metrics.json").exists()


def test_with_an_evaluation_it_has_table_training_and_samples(
    shipped, small_model, evaluation, training, monkeypatch
):
    before = read_fingerprint(shipped)
    given = ("--model", small_model, "--output", shipped, "--evaluation", evaluation)
    assert run(monkeypatch, *given, "--run", f"base={training}") == 0
    card = (shipped / "README.md").read_text()
    assert "| full model | 8 | 0.75 [" in card
    assert "| base | 200 | 16 pictures or 4 clips | 0.001 | 2.0 |" in card
    assert "shape 0.980 on held-out true clips" in card
    assert (shipped / "samples.png").is_file()
    metrics = json.loads((shipped / "metrics.json").read_text())
    assert metrics["training"][0]["val_loss_video"] == 0.25
    assert read_fingerprint(shipped) == before


def test_the_evaluation_of_another_model_is_refused(shipped, tiny_model, evaluation, monkeypatch, capsys):
    found = json.loads((evaluation / "metrics.json").read_text())
    found["how"]["models"]["full"] = "f" * 64
    (evaluation / "metrics.json").write_text(json.dumps(found))
    given = ("--output", shipped, "--evaluation", evaluation)
    assert run(monkeypatch, "--model", shipped, *given) == 2
    assert "of the model ffffffffffff" in capsys.readouterr().err
    assert (shipped / "fingerprint").is_file(), "what was there stays"


def test_an_untrained_model_is_not_shipped(tiny_model, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--model", tiny_model, "--output", tmp_path / "shipped") == 2
    assert "must be trained" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_is_refused(small_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(finish, "MAX_FILE_BYTES", 100_000)
    assert run(monkeypatch, "--model", small_model, "--output", tmp_path / "shipped") == 2
    assert "at most 100000 are allowed" in capsys.readouterr().err
    monkeypatch.setattr(finish, "MAX_FILE_BYTES", 10**9)
    monkeypatch.setattr(finish, "MAX_BYTES", 200_000)
    assert run(monkeypatch, "--model", small_model, "--output", tmp_path / "shipped") == 2
    assert not (tmp_path / "shipped").exists()


def test_training_facts_come_from_the_run(training, tmp_path):
    facts = training_facts("base", training)
    assert facts["steps"] == 200
    assert facts["hours"] == 2.0
    assert facts["loss"] == pytest.approx(np.mean([1 / i for i in range(11, 21)]), abs=1e-4)
    with pytest.raises(ValueError, match="it must hold"):
        training_facts("base", tmp_path)


def test_a_page_of_the_documentation_shows_the_table_too(
    shipped, small_model, evaluation, training, tmp_path, monkeypatch, capsys
):
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(
        "# Page\n<!-- measured: written by examples.demo_model.finish -->\nNot yet.\n<!-- /measured -->\nEnd.\n"
    )
    given = ("--model", small_model, "--output", shipped, "--evaluation", evaluation, "--page", page)
    for _ in range(2):
        assert run(monkeypatch, *given, "--run", f"base={training}") == 0
        text = page.read_text()
        assert text.startswith("# Page\n")
        assert text.endswith("<!-- /measured -->\nEnd.\n")
        assert text.count("| full model | 8 |") == 1
        assert "](../shipped/samples.png)" in text
    page.write_text("# Page\n")
    assert run(monkeypatch, *given) == 2
    assert "the page lacks the line" in capsys.readouterr().err


def test_the_page_of_this_repository_has_its_place():
    page = Path(__file__).parents[3] / "docs" / "demo_model.md"
    metrics = {"training": [], "variants": {}, "content_loss": {}}
    with pytest.raises(KeyError):  # there is a place; there is nothing to put there
        with_measured(page.read_text(), metrics, "samples.png")
