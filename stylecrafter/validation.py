"""Checks of what a user asks for: every ValueError names field, value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from PIL import Image

Scale = float | Sequence[float] | torch.Tensor
"""One number for all rows, or one per row."""


def per_row(value: Scale, batch: int, name: str, most: float = math.inf) -> torch.Tensor:
    """One number for all rows, or one per row, as float32 [B].

    Args:
        most: if finite, the numbers must lie between 0 and this.

    Raises:
        ValueError: wrong count, or a number that is not finite or out of range.
    """
    values = torch.as_tensor(value, dtype=torch.float32).flatten().cpu()
    if values.numel() not in (1, batch):
        raise ValueError(f"{name} has {values.numel()} values; allowed are 1 or one per row ({batch})")
    if not all(math.isfinite(number) for number in values.tolist()):
        raise ValueError(f"{name} is {values.tolist()}; only finite numbers are allowed")
    if math.isfinite(most) and not all(0 <= number <= most for number in values.tolist()):
        raise ValueError(f"{name} is {values.tolist()}; allowed are 0 to {most:g}")
    return values.expand(batch).clone()


def style_weights(value: Scale | Mapping[str, Scale], batch: int, groups: Sequence[str]) -> torch.Tensor:
    """Weight of the style in every layer, float32 [B, L], from one for all layers or one per group.

    Args:
        groups: group of each layer; a group that `value` leaves out has weight 1.

    Raises:
        ValueError: another group, or numbers that do not fit the rows.
    """
    if not isinstance(value, Mapping):
        return per_row(value, batch, "style_scale")[:, None].expand(-1, len(groups))
    if unknown := sorted(value.keys() - set(groups)):
        allowed = ", ".join(map(repr, sorted(set(groups))))
        raise ValueError(f"style_scale names the groups {unknown}; allowed are {allowed}")
    weights = {
        group: per_row(value.get(group, 1.0), batch, f"style_scale[{group!r}]") for group in set(groups)
    }
    return torch.stack([weights[group] for group in groups], dim=1)


def check_weights(weights: Sequence[float], references: int) -> None:
    """One weight per reference, finite, not negative, not all 0."""
    if len(weights) != references:
        raise ValueError(f"reference weights are {len(weights)}; expected one per reference ({references})")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(
            f"reference weights are {list(weights)}; allowed are finite numbers of 0 or more, not all 0"
        )


def check_rows(batch: int, **fields: Sized | None) -> None:
    """Every given field must have one entry per row."""
    for name, field in fields.items():
        if field is not None and len(field) != batch:
            raise ValueError(f"{name} has {len(field)} rows; the prompts have {batch}")


def check_size(height: int, width: int, multiple: int) -> None:
    """Sizes in pixels must be positive multiples of what VAE and UNet halve."""
    for name, pixels in (("height", height), ("width", width)):
        if pixels < 1 or pixels % multiple:
            raise ValueError(f"{name} is {pixels}; allowed are positive multiples of {multiple} pixels")


def check_frames(num_frames: int, mode: str) -> None:
    """A video has at least one frame, an image exactly one."""
    if mode not in ("video", "image"):
        raise ValueError(f"mode is {mode!r}; allowed are 'video', 'image'")
    if num_frames < 1 or (mode == "image" and num_frames != 1):
        allowed = "1" if mode == "image" else "1 or more"
        raise ValueError(f"num_frames is {num_frames}; allowed in {mode} mode: {allowed}")


def check_eta(eta: float) -> None:
    """DDIM's eta interpolates between deterministic (0) and fully stochastic (1)."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}; allowed are 0 to 1")


def check_interval(interval: tuple[float, float]) -> None:
    """A part of the steps, from start to end."""
    start, end = interval
    if not 0 <= start <= end <= 1:
        raise ValueError(f"guidance_interval is {interval}; allowed are 0 <= start <= end <= 1")


def check_sampling(
    height: int,
    width: int,
    multiple: int,
    num_frames: int,
    mode: str,
    eta: float,
    guidance_interval: tuple[float, float],
) -> None:
    """What every engine asks of a request, whatever its conditions."""
    check_size(height, width, multiple)
    check_frames(num_frames, mode)
    check_eta(eta)
    check_interval(guidance_interval)


def references_of_rows(style_images: Any, rows: int) -> list[list[Image.Image]]:
    """References of every row, from one picture, one list for all rows, or one list per row.

    Raises:
        ValueError: as many lists as there are rows were expected.
    """
    if isinstance(style_images, Image.Image):
        return [[style_images]] * rows
    style_images = list(style_images)
    if not style_images or isinstance(style_images[0], Image.Image):
        return [style_images] * rows
    if len(style_images) != rows:
        raise ValueError(f"style_images has {len(style_images)} rows; the prompts have {rows}")
    return [list(row) for row in style_images]


def weights_of_rows(weights: Any, rows: int) -> list[list[float] | None]:
    """Reference weights of every row, from None, one list for all rows, or one list per row.

    Raises:
        ValueError: as many lists as there are rows were expected.
    """
    if weights is None:
        return [None] * rows
    weights = list(weights)
    if not weights or isinstance(weights[0], int | float):
        return [weights] * rows
    check_rows(rows, reference_weights=weights)
    return [list(row) for row in weights]


def depth_clips_of_rows(depth: Any, rows: int) -> list[Any]:
    """The depth clip of every row, from one clip for all (an array or a list of pictures), or a list of clips.

    Raises:
        ValueError: as many clips as there are rows were expected.
    """
    if isinstance(depth, np.ndarray | torch.Tensor):
        return [depth] * rows
    depth = list(depth)
    if not depth or isinstance(depth[0], Image.Image):
        return [depth] * rows
    check_rows(rows, depth=depth)
    return depth
