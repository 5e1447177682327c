"""examples/encoders/linear_start.py: the autoencoder begins as a linear coder, before any training."""

import pytest
import torch

from examples.encoders.linear_start import start_linear
from examples.encoders.pictures import demo_pictures
from examples.encoders.train_autoencoder import build_autoencoder, psnr, to_signed

PICTURES = demo_pictures(40, 0, "styled")


@pytest.fixture(scope="module")
def started():
    vae = build_autoencoder((16, 32, 64, 96), 16, seed=0).eval()
    start_linear(vae, to_signed(PICTURES[:30]))
    return vae


def test_pictures_come_back_before_any_training(started):
    fresh = build_autoencoder((16, 32, 64, 96), 16, seed=0).eval()
    assert psnr(started, PICTURES[30:]).mean() > 20
    assert psnr(fresh, PICTURES[30:]).mean() < 12


@torch.no_grad()
def test_latents_have_unit_deviation_and_do_not_depend_on_a_pictures_contrast(started):
    pixels_NCHW = to_signed(PICTURES[30:])
    latents = started.encode(pixels_NCHW).latent_dist.mean
    assert torch.all((latents.std(dim=(0, 2, 3)) - 1).abs() < 0.4)
    # Norms that had any say would undo the scale; the constants beside the values keep them from it.
    halved = started.encode(pixels_NCHW / 2).latent_dist.mean
    assert torch.linalg.vector_norm(halved - latents / 2) < 0.15 * torch.linalg.vector_norm(latents)


def test_channels_without_room_for_the_pairs_are_refused():
    vae = build_autoencoder((16, 64, 24), 16, seed=0)
    with pytest.raises(ValueError, match="24 channels must hold 16 pairs"):
        start_linear(vae, to_signed(PICTURES[:4]))
