"""Content-style decoupling: target and style reference as two different views of the same picture.

The target is the whole picture, the reference a smaller region of it in more detail, so that colours and
strokes agree while the content does not, and the adapter cannot learn to copy content (paper, section 3.3).

Shapes: T frames, H, W pixels, C = 3 colours. Pictures are uint8 RGB.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

REFERENCE_ENLARGEMENT = 800 / 512
"""Short side of the picture over the side of the reference cut out of it, as published."""

_Box = tuple[float, float, float, float]


def decoupled_pair(
    pixels: np.ndarray,
    height: int,
    width: int,
    reference_size: int,
    generator: np.random.Generator,
    augment: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Target and style reference of one picture or clip.

    A clip's frames are all cut alike; its reference comes from a frame drawn at random.

    Args:
        pixels: HWC or THWC, of any size.
        height, width: of the target, pixels.
        reference_size: side of the square reference, pixels (`StyleImageProcessor.reference_size`).
        generator: the same numbers are drawn whatever `augment` says.
        augment: False takes the reference from the middle like the target (an ablation of the paper).

    Returns:
        Target of `height` x `width` with the dimensions of `pixels`, and reference HWC.

    Raises:
        ValueError: pixels that are not uint8 RGB, or a size below 1.
    """
    target = centre_crop(pixels, height, width)
    frame, down, right = generator.random(3)
    picture_HWC = pixels if pixels.ndim == 3 else pixels[int(frame * len(pixels))]
    if augment:
        return target, _detail(picture_HWC, reference_size, down, right)
    return target, centre_crop(picture_HWC, reference_size, reference_size)


def reference_crop(pixels_HWC: np.ndarray, reference_size: int, generator: np.random.Generator) -> np.ndarray:
    """A random square of the picture at `REFERENCE_ENLARGEMENT` times the size that would show all of it.

    For a reference that is another picture of the same style, too.

    Raises:
        ValueError: see `decoupled_pair`.
    """
    _check(pixels_HWC, reference_size, reference_size)
    down, right = generator.random(2)
    return _detail(pixels_HWC, reference_size, down, right)


def centre_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """HWC or THWC, scaled until it just covers `height` x `width`, with what sticks out cut off evenly.

    Raises:
        ValueError: see `decoupled_pair`.
    """
    _check(pixels, height, width)
    tall, wide = pixels.shape[-3:-1]
    scale = min(tall / height, wide / width)  # source pixels per target pixel
    left, top = (wide - scale * width) / 2, (tall - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    if pixels.ndim == 3:
        return _resize(pixels, height, width, box)
    return np.stack([_resize(frame, height, width, box) for frame in pixels])


def _detail(pixels_HWC: np.ndarray, size: int, down: float, right: float) -> np.ndarray:
    """The square whose corner lies at these shares (0 to 1) of the room there is for it."""
    _check(pixels_HWC, size, size)
    tall, wide = pixels_HWC.shape[:2]
    # On the enlarged picture, whose sides are whole numbers, this is the published square of `size` pixels.
    side = min(tall, wide) * size / max(round(size * REFERENCE_ENLARGEMENT), 1)
    left, top = right * (wide - side), down * (tall - side)
    return _resize(pixels_HWC, size, size, (left, top, left + side, top + side))


def _resize(pixels_HWC: np.ndarray, height: int, width: int, box: _Box) -> np.ndarray:
    """The part of a picture inside the box (left, top, right, bottom), in this size, smoothed when reduced."""
    # Resizing the box alone is resizing all and cropping, without the pixels that would be thrown away.
    tall, wide = pixels_HWC.shape[:2]
    box = (max(box[0], 0), max(box[1], 0), min(box[2], wide), min(box[3], tall))  # rounding errors
    image = Image.fromarray(pixels_HWC)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _check(pixels: np.ndarray, height: int, width: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(
            f"pixels are {pixels.dtype} of shape {pixels.shape}; allowed are uint8 HWC or THWC with 3 colours"
        )
    for name, value in (("height", height), ("width", width)):
        if value < 1:
            raise ValueError(f"{name} is {value}; allowed are 1 or more pixels")
