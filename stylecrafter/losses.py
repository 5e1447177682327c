"""Objectives of training and the random numbers they need.

Shapes: B rows, C latent channels, T frames, H, W latent pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr

from stylecrafter.training_options import TrainingOptions

PREDICTION_TYPES = ("epsilon", "v_prediction")
_Shape = Sequence[int]


# ---- Objectives ----------------------------------------------------------------------------------


def check_prediction_type(scheduler: DDIMScheduler) -> str:
    """What the model predicts, as the scheduler's config says.

    Raises:
        ValueError: neither noise nor velocity.
    """
    kind = scheduler.config.prediction_type
    if kind not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type is {kind!r}; allowed are {', '.join(map(repr, PREDICTION_TYPES))}")
    return kind


def training_target(
    scheduler: DDIMScheduler, latents_BCTHW: torch.Tensor, noise_BCTHW: torch.Tensor, timestep_B: torch.Tensor
) -> torch.Tensor:
    """What the model should predict [B, C, T, H, W]: the noise, or the velocity (Salimans and Ho 2022)."""
    if check_prediction_type(scheduler) == "epsilon":
        return noise_BCTHW
    return scheduler.get_velocity(latents_BCTHW, noise_BCTHW, timestep_B)


def min_snr_weight(scheduler: DDIMScheduler, timestep_B: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weight of each row's loss, float32 [B] (Hang et al. 2023, section 3.4).

    min(SNR, gamma) on the loss of the clean latents is min(SNR, gamma) / SNR on the noise's and
    min(SNR, gamma) / (SNR + 1) on the velocity's.
    """
    snr_B = compute_snr(scheduler, timestep_B)
    if check_prediction_type(scheduler) == "epsilon":
        return (gamma / snr_B).clamp(max=1)
    return snr_B.clamp(max=gamma) / (snr_B + 1)


def loss_per_row(
    prediction_BCTHW: torch.Tensor, target_BCTHW: torch.Tensor, weight_B: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of each row over channels, frames and pixels, weighted; float32 [B]."""
    error_B = (prediction_BCTHW.float() - target_BCTHW.float()).square().flatten(1).mean(dim=1)
    return error_B if weight_B is None else weight_B * error_B


# ---- Random numbers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """All random numbers of one micro-batch, on the CPU as `draw` makes them.

    Attributes:
        timestep_B: int64, 0 up to the schedule's length.
        noise_BCTHW: float32, with what options add to it.
        posterior_BCTHW: float32 unit noise of the VAE's sample.
        drop_text_B, drop_style_B: bool, rows that lose this condition.
    """

    timestep_B: torch.Tensor
    noise_BCTHW: torch.Tensor
    posterior_BCTHW: torch.Tensor
    drop_text_B: torch.Tensor
    drop_style_B: torch.Tensor

    def to(self, device: torch.device | str) -> Draws:
        """The same numbers on another device."""
        return Draws(
            self.timestep_B.to(device),
            self.noise_BCTHW.to(device),
            self.posterior_BCTHW.to(device),
            self.drop_text_B.to(device),
            self.drop_style_B.to(device),
        )


def draw(
    seed: int,
    kind: str,
    positions: Sequence[int],
    latent_shape_CTHW: _Shape,
    options: TrainingOptions,
    num_train_timesteps: int,
) -> Draws:
    """Random numbers of the rows at these positions of a kind's stream.

    A row's numbers are a function of (seed, kind, position) and the options: never of the batch, the
    worker or the order. An option changes only what it is about: runs that differ in dropout see the same
    noise.

    Args:
        kind: name of the stream, "image" or "video".
        positions: of the rows in that stream, 0 or more.
        latent_shape_CTHW: of one row, see `TrainingModel.latent_shape`.
        num_train_timesteps: length of the schedule.
    """
    rows = [
        _draw_row(_generator(seed, kind, position), latent_shape_CTHW, options, num_train_timesteps)
        for position in positions
    ]
    return _stack(rows)


def validation_draws(
    seed: int,
    kind: str,
    positions: Sequence[int],
    count: int,
    latent_shape_CTHW: _Shape,
    num_train_timesteps: int,
) -> Draws:
    """Fixed numbers for a fixed set of `count` rows: timesteps spread evenly over the set, nothing dropped.

    The noise is plain whatever the training's options, so that losses of different runs compare.

    Args:
        positions: rows of the set that are in this batch, each below `count`.

    Raises:
        ValueError: a position outside the set.
    """
    if outside := [position for position in positions if not 0 <= position < count]:
        raise ValueError(f"positions {outside} are outside the validation set; allowed are 0 to {count - 1}")
    options = TrainingOptions(drop_text=0, drop_style=0)
    draws = draw(seed, f"validation-{kind}", positions, latent_shape_CTHW, options, num_train_timesteps)
    timesteps = [int((position + 0.5) * num_train_timesteps / count) for position in positions]
    return Draws(
        torch.tensor(timesteps, dtype=torch.int64),
        draws.noise_BCTHW,
        draws.posterior_BCTHW,
        draws.drop_text_B,
        draws.drop_style_B,
    )


def mix_shared_noise(own_CTHW: torch.Tensor, common_CHW: torch.Tensor, share: float) -> torch.Tensor:
    """Unit noise whose frames correlate by `share` ("mixed" noise of PYoCo, Ge et al. 2023, section 4.2).

    Their alpha is sqrt(share / (1 - share)).
    """
    return (1 - share) ** 0.5 * own_CTHW + share**0.5 * common_CHW[:, None]


def _generator(seed: int, kind: str, position: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}\0{kind}\0{position}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def _draw_row(generator: torch.Generator, shape: _Shape, options: TrainingOptions, steps: int) -> Draws:
    # Everything is drawn in this order whether an option uses it or not, so that no option shifts the rest.
    high, place, text, style = torch.rand(4, dtype=torch.float64, generator=generator).tolist()
    noise_CTHW, posterior_CTHW = (torch.randn(tuple(shape), generator=generator) for _ in range(2))
    channels, _, height, width = shape
    common_CHW = torch.randn((channels, height, width), generator=generator)
    offset_C = torch.randn(channels, generator=generator)
    first = steps - steps // 4 if high < options.high_noise_share else 0
    noise_CTHW = mix_shared_noise(noise_CTHW, common_CHW, options.shared_noise)
    return Draws(
        torch.tensor(first + int(place * (steps - first))),
        noise_CTHW + options.noise_offset * offset_C[:, None, None, None],
        posterior_CTHW,
        torch.tensor(text < options.drop_text),
        torch.tensor(style < options.drop_style),
    )


def _stack(rows: Sequence[Draws]) -> Draws:
    return Draws(
        torch.stack([row.timestep_B for row in rows]),
        torch.stack([row.noise_BCTHW for row in rows]),
        torch.stack([row.posterior_BCTHW for row in rows]),
        torch.stack([row.drop_text_B for row in rows]),
        torch.stack([row.drop_style_B for row in rows]),
    )
