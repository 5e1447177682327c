"""python -m examples.encoders.train_clip, at a tiny size."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from examples.encoders import train_clip
from examples.encoders.clip_data import demo_data
from examples.encoders.clip_trainer import ClipTrainer, step_loss, to_clip_input
from examples.encoders.components import load_clip
from examples.untrained_model import build_untrained_pipeline
from stylecrafter import StyleCrafterPipeline
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.tokenizer import PUBLISHED_MERGES, tokenizer_from_merges
from tests.support.training_data import write_manifest, write_picture

TINY = [
    "--size",
    "32",
    "--vision-width",
    "32",
    "--vision-layers",
    "1",
    "--text-width",
    "32",
    "--text-layers",
    "2",
]
TINY += ["--projection", "16", "--batch", "8", "--pool", "40", "--probed", "16"]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train_clip", *map(str, arguments)])
    return train_clip.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "--output", folder, "--steps", 100, *TINY) == 0
    return folder


def components(folder):
    return load_clip(folder)._asdict()


def test_the_loss_falls_and_probes_are_stored(trained):
    lines = [json.loads(line) for line in (trained / "training/clip/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    found = json.loads((trained / "clip.json").read_text())
    assert {"probe_family", "probe_palette", "probe_shape", "probe_scene"} < set(found)
    assert found["spread_motion_share"] > 0


def test_a_pipeline_takes_the_components_and_loads_them_again(trained, tmp_path):
    parts = components(trained)
    pipeline = build_untrained_pipeline(seed=0, channels=(32, 32), layers_per_block=1)
    unet = type(pipeline.unet).from_config(pipeline.unet.config | {"cross_attention_dim": 32})
    adapter = StyleAdapter(
        image_dim=32, context_dim=32, num_layers=1, layer_channels=unet.style_layer_channels
    )
    pipeline.register_modules(unet=unet, style_adapter=adapter, **parts)
    pipeline.save_pretrained(tmp_path)
    loaded = StyleCrafterPipeline.from_pretrained(tmp_path)
    assert loaded.encode_prompt(["a ring moving left over the sea", "a"]).shape == (2, 24, 32)
    assert loaded.encode_style(Image.new("RGB", (40, 32))).shape[-1] == 32


def test_a_tokenizer_that_was_left_out_is_made_again(trained, monkeypatch, tmp_path):
    assert run(monkeypatch, "--output", tmp_path, "--steps", 1, "--no-tokenizer", *TINY) == 0
    assert not (tmp_path / "tokenizer").exists()
    prompts = ["a ring moving left over the sea, line art"]
    made, stored = (components(folder)["tokenizer"].prompt_ids(prompts) for folder in (tmp_path, trained))
    assert torch.equal(made, stored)


def test_a_locked_text_tower_stays_as_it_is(trained, monkeypatch, tmp_path):
    assert (
        run(monkeypatch, "--output", tmp_path, "--steps", 3, "--text", trained / "text_encoder", *TINY) == 0
    )
    before, after = components(trained), components(tmp_path)
    for name, tensor in before["text_encoder"].state_dict().items():
        assert torch.equal(tensor, after["text_encoder"].state_dict()[name]), name
    assert not torch.equal(
        before["image_encoder"].visual_projection.weight, after["image_encoder"].visual_projection.weight
    )


def test_a_text_tower_of_another_size_is_refused(trained, monkeypatch, tmp_path, capsys):
    text = trained / "text_encoder"
    assert run(monkeypatch, "--output", tmp_path, "--text", text, *TINY, "--text-width", 64) == 2
    assert "must have the shape" in capsys.readouterr().err


def test_references_reach_the_tower_as_pictures_did_in_training(trained):
    picture = demo_data(1, 0, size=32).frames_NTHWC[0, 0]
    processor = components(trained)["feature_extractor"]
    expected = to_clip_input(picture[None, None])[0]
    torch.testing.assert_close(processor.style([Image.fromarray(picture)]), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(processor.clip([Image.fromarray(picture)]), expected, rtol=0, atol=1e-5)


def test_every_helper_and_both_towers_learn():
    data = demo_data(16, 0, size=32)
    options = train_clip.parser().parse_args(["--output", "x", *TINY])
    trainer = ClipTrainer(train_clip.build_clip(options), list(data.labels))
    tokenizer = tokenizer_from_merges(PUBLISHED_MERGES, options.vocabulary, options.prompt_length)
    step_loss(trainer, tokenizer, data, 16)[0].backward()
    silent = [name for name, p in trainer.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # The bias of keys moves all logits of a softmax alike.
    assert [name for name in silent if not name.endswith("k_proj.bias")] == []


def test_a_training_manifest_takes_the_place_of_the_demo_world(monkeypatch, tmp_path):
    rows = [{"uri": write_picture(tmp_path / f"{i}.png", i), "caption": f"noise {i}"} for i in range(8)]
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    assert run(monkeypatch, "--output", tmp_path, "--data", manifest, "--steps", 2, *TINY) == 0
    assert np.isfinite(float(components(tmp_path)["text_encoder"].text_projection.weight.detach().sum()))


def test_a_size_that_patches_do_not_cover_is_refused(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, "--output", tmp_path, "--size", 36, "--pool", 2) == 2
    assert "size is 36; it must be a multiple of 8" in capsys.readouterr().err
