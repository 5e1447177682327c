"""python -m examples.encoders.train_autoencoder, at a tiny size."""

import json
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from examples.encoders import train_autoencoder
from examples.encoders.train_autoencoder import build_autoencoder, psnr, to_signed
from examples.untrained_model import build_untrained_pipeline
from stylecrafter import StyleCrafterPipeline
from tests.support.training_data import write_manifest, write_picture

TINY = [
    "--size",
    "32",
    "--channels",
    "16",
    "32",
    "48",
    "--latent-channels",
    "4",
    "--batch",
    "4",
    "--pool",
    "48",
]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train_autoencoder", *map(str, arguments)])
    return train_autoencoder.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_autoencoder, "_HELD_OUT", 8)
        assert run(patch, "--output", folder, "--steps", 50, *TINY) == 0
    return folder


def metrics(folder):
    return [
        json.loads(line) for line in (folder / "training/autoencoder/metrics.jsonl").read_text().splitlines()
    ]


def test_it_learns_and_says_how_well(trained):
    found = metrics(trained)[-1]
    assert found["step"] == 50
    assert found["psnr_styled"] > 15
    assert found["psnr_neutral"] > 15
    facts = json.loads((trained / "autoencoder.json").read_text())
    assert facts["psnr_styled"] == found["psnr_styled"]
    assert "--steps 50" in facts["command"]


def test_the_component_is_stored_in_half_and_its_latents_have_unit_deviation(trained):
    vae = AutoencoderKL.from_pretrained(trained / "vae")
    assert AutoencoderKL.from_pretrained(trained / "vae", torch_dtype=torch.float16).dtype == torch.float16
    pictures = train_autoencoder.demo_pictures(16, 3, "styled", size=32)
    with torch.no_grad():
        latents = vae.encode(to_signed(pictures)).latent_dist.mean * vae.config.scaling_factor
    assert 0.6 < float(latents.std()) < 1.5
    assert psnr(vae, pictures).mean() > 14


def test_a_pipeline_takes_it_and_loads_it_again(trained, tmp_path):
    pipeline = build_untrained_pipeline(seed=0, channels=(32, 32), layers_per_block=1)
    pipeline.register_modules(vae=AutoencoderKL.from_pretrained(trained / "vae"))
    pipeline.save_pretrained(tmp_path)
    loaded = StyleCrafterPipeline.from_pretrained(tmp_path)
    frames = loaded.decode_latents(torch.zeros(1, 4, 2, 8, 8))
    assert loaded.vae_scale_factor == 4
    assert frames.shape == (1, 2, 32, 32, 3)


def test_a_training_manifest_takes_the_place_of_the_demo_world(monkeypatch, tmp_path):
    rows = [{"uri": write_picture(tmp_path / f"{i}.png", i), "caption": "noise"} for i in range(8)]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    manifest = write_manifest(
        tmp_path / "m.parquet", [*rows, {"uri": str(tmp_path / "broken.png"), "caption": "-"}]
    )
    assert run(monkeypatch, "--output", tmp_path, "--data", manifest, "--steps", 2, *TINY) == 0
    assert np.isfinite(metrics(tmp_path)[-1]["psnr_held_out"])


def test_what_is_wrong_is_named_with_exit_code_2(monkeypatch, tmp_path, capsys):
    missing = tmp_path / "none.parquet"
    assert run(monkeypatch, "--output", tmp_path, "--data", missing, *TINY) == 2
    assert "none.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [(16,), (16, 30), (32, 32, 48), (16, 32, 32)])
def test_widths_that_cannot_be_are_refused(channels):
    with pytest.raises(ValueError, match="channels are"):
        build_autoencoder(channels, 4, seed=0)
