"""Objectives against numbers worked out by hand, and what the random numbers of a row depend on."""

from dataclasses import fields

import pytest
import torch
from diffusers import DDIMScheduler

from stylecrafter.losses import (
    draw,
    loss_per_row,
    min_snr_weight,
    mix_shared_noise,
    training_target,
    validation_draws,
)
from stylecrafter.training_options import TrainingOptions

SHAPE = (4, 3, 2, 5)


def scheduler(prediction_type: str) -> DDIMScheduler:
    """Three steps whose share of signal is .8, .48 and .096: SNR 4, .923 and .106."""
    return DDIMScheduler(
        num_train_timesteps=3,
        trained_betas=[0.2, 0.4, 0.8],
        prediction_type=prediction_type,
        clip_sample=False,
    )


SNR = [0.8 / 0.2, 0.48 / 0.52, 0.096 / 0.904]


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [
        ("epsilon", [2 / SNR[0], 1.0, 1.0]),
        ("v_prediction", [2 / (SNR[0] + 1), SNR[1] / (SNR[1] + 1), SNR[2] / (SNR[2] + 1)]),
    ],
)
def test_min_snr_weights(prediction_type, expected):
    weights = min_snr_weight(scheduler(prediction_type), torch.arange(3), gamma=2.0)
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


def test_targets():
    latents, noise = torch.full((1, *SHAPE), 3.0), torch.full((1, *SHAPE), 2.0)
    timestep = torch.tensor([1])
    assert torch.equal(training_target(scheduler("epsilon"), latents, noise, timestep), noise)
    velocity = training_target(scheduler("v_prediction"), latents, noise, timestep)
    assert torch.allclose(velocity, torch.full((1, *SHAPE), 0.48**0.5 * 2 - 0.52**0.5 * 3))
    with pytest.raises(
        ValueError, match="prediction_type is 'sample'; allowed are 'epsilon', 'v_prediction'"
    ):
        training_target(scheduler("sample"), latents, noise, timestep)


def test_loss_is_the_mean_square_of_each_row_in_float32():
    prediction = torch.zeros(2, *SHAPE, dtype=torch.bfloat16)
    target = torch.zeros(2, *SHAPE)
    target[0, 0] = 2.0
    loss = loss_per_row(prediction, target, torch.tensor([3.0, 5.0]))
    assert loss.dtype == torch.float32
    assert loss.tolist() == [3.0 * 4 / SHAPE[0], 0.0]


def draws_of(positions, seed=1, kind="image", **options):
    return draw(seed, kind, positions, SHAPE, TrainingOptions(**options), 1000)


def assert_same(one, other):
    for field in fields(one):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_a_rows_draws_do_not_depend_on_the_batch():
    together = draws_of([5, 2, 9], shared_noise=0.3, noise_offset=0.1, high_noise_share=0.5)
    for row, position in enumerate([5, 2, 9]):
        alone = draws_of([position], shared_noise=0.3, noise_offset=0.1, high_noise_share=0.5)
        for field in fields(alone):
            assert torch.equal(getattr(together, field.name)[row : row + 1], getattr(alone, field.name))
    assert together.timestep_B.dtype == torch.int64
    assert together.noise_BCTHW.shape == (3, *SHAPE)
    assert together.drop_text_B.dtype == torch.bool


@pytest.mark.parametrize("other", [{"seed": 2}, {"kind": "video"}, {"positions": [4]}])
def test_seed_kind_and_position_each_change_the_draws(other):
    base = draws_of([3])
    changed = draws_of(**{"positions": [3]} | other)
    assert not torch.allclose(base.noise_BCTHW, changed.noise_BCTHW)
    assert not torch.allclose(base.posterior_BCTHW, changed.posterior_BCTHW)


def test_noise_and_posterior_are_different_numbers():
    draws = draws_of(range(50))
    both = torch.stack([draws.noise_BCTHW.flatten(), draws.posterior_BCTHW.flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.05


def test_an_option_leaves_the_other_numbers_alone():
    plain = draws_of(range(8), drop_text=0, drop_style=0)
    dropped = draws_of(range(8), drop_text=1, drop_style=1, min_snr_gamma=5)
    assert torch.equal(plain.noise_BCTHW, dropped.noise_BCTHW)
    assert torch.equal(plain.timestep_B, dropped.timestep_B)
    assert not plain.drop_text_B.any()
    assert dropped.drop_style_B.all()
    offset = draws_of(range(8), noise_offset=0.1, shared_noise=0.2)
    assert torch.equal(plain.posterior_BCTHW, offset.posterior_BCTHW)


def test_text_and_style_are_dropped_separately_at_their_rates():
    draws = draws_of(range(2000), drop_text=0.3, drop_style=0.5)
    assert draws.drop_text_B.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert draws.drop_style_B.float().mean().item() == pytest.approx(0.5, abs=0.04)
    both = (draws.drop_text_B & draws.drop_style_B).float().mean().item()
    assert both == pytest.approx(0.15, abs=0.03)


@pytest.mark.parametrize(("share", "noisy"), [(0.0, 0.25), (0.5, 0.625), (1.0, 1.0)])
def test_high_noise_share(share, noisy):
    timesteps = draws_of(range(2000), high_noise_share=share).timestep_B
    assert timesteps.min() >= 0
    assert 980 < timesteps.max() <= 999
    assert (timesteps >= 750).float().mean().item() == pytest.approx(noisy, abs=0.04)


def test_shared_noise_has_unit_variance_and_the_stated_correlation():
    noise = draw(0, "video", range(200), (4, 4, 8, 8), TrainingOptions(shared_noise=0.4), 1000).noise_BCTHW
    assert noise.std().item() == pytest.approx(1.0, abs=0.01)
    frames = noise.permute(2, 0, 1, 3, 4).flatten(1)
    correlation = torch.corrcoef(frames)
    assert torch.allclose(correlation, 0.4 + 0.6 * torch.eye(4), atol=0.02)
    # Rows stay independent.
    assert torch.corrcoef(noise.flatten(1))[~torch.eye(200, dtype=torch.bool)].mean().abs() < 0.02


def test_mixing_keeps_what_it_should():
    own, common = torch.full(SHAPE, 1.0), torch.full((SHAPE[0], *SHAPE[2:]), 1.0)
    assert torch.equal(mix_shared_noise(own, common, 0.0), own)
    assert torch.allclose(mix_shared_noise(own, common, 0.36), torch.full(SHAPE, 0.8 + 0.6))


def test_noise_offset_moves_whole_channels():
    plain, offset = (draws_of([7], noise_offset=size).noise_BCTHW for size in (0.0, 0.5))
    difference = (offset - plain)[0]
    assert torch.allclose(difference, difference[:, :1, :1, :1].expand(SHAPE), atol=1e-6)
    assert difference[:, 0, 0, 0].unique().numel() == SHAPE[0]


def test_validation_draws_are_fixed_and_spread():
    draws = validation_draws(0, "image", range(4), 4, SHAPE, 1000)
    assert draws.timestep_B.tolist() == [125, 375, 625, 875]
    assert not draws.drop_text_B.any()
    assert not draws.drop_style_B.any()
    last = validation_draws(0, "image", [3], 4, SHAPE, 1000)
    assert torch.equal(last.noise_BCTHW, draws.noise_BCTHW[3:])
    assert last.timestep_B.tolist() == [875]
    assert not torch.equal(draws.noise_BCTHW, draws_of(range(4), seed=0).noise_BCTHW)
    assert_same(draws, validation_draws(0, "image", range(4), 4, SHAPE, 1000))
    with pytest.raises(ValueError, match=r"positions \[4\] are outside .* allowed are 0 to 3"):
        validation_draws(0, "image", [0, 4], 4, SHAPE, 1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_text": 1.5}, "drop_text is 1.5; allowed are 0 to 1"),
        ({"drop_style": -0.1}, "drop_style is -0.1"),
        ({"high_noise_share": 2}, "high_noise_share is 2"),
        ({"shared_noise": 1.0}, "shared_noise is 1.0; allowed are 0 up to, but not, 1"),
        ({"noise_offset": -1}, "noise_offset is -1; allowed are 0 or more"),
        ({"scale_penalty": float("nan")}, "scale_penalty is nan"),
        ({"min_snr_gamma": 0}, "min_snr_gamma is 0; allowed are None and numbers above 0"),
        ({"vae_chunk_frames": 0}, "vae_chunk_frames is 0; allowed are 1 or more"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)
