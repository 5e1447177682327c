"""Checks of what a user asks for: every ValueError names field, value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from typing import Any

import torch
from PIL import Image


def per_row(value: float | Sequence[float] | torch.Tensor, batch: int, name: str) -> torch.Tensor:
    """One number for all rows, or one per row, as float32 [B].

    Raises:
        ValueError: wrong count, or a number that is not finite.
    """
    values = torch.as_tensor(value, dtype=torch.float32).flatten().cpu()
    if values.numel() not in (1, batch):
        raise ValueError(f"{name} has {values.numel()} values; allowed are 1 or one per row ({batch})")
    if not all(math.isfinite(number) for number in values.tolist()):
        raise ValueError(f"{name} is {values.tolist()}; only finite numbers are allowed")
    return values.expand(batch).clone()


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
