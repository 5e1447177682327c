"""Coordinates and the patterns that families are made of.

Lengths are in pixels of a frame of 64 x 64 ("units"), whatever the size of the drawing.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

# Fields are float32 HW, most of them in 0..1.

UNITS = 64.0

_NOISE_SIDE = 256


@dataclass(frozen=True)
class Grid:
    """Where each pixel of a drawing lies, in units."""

    x_HW: np.ndarray
    y_HW: np.ndarray
    pixels_per_unit: float

    def crop(self, rows: slice) -> "Grid":
        return Grid(self.x_HW[rows], self.y_HW[rows], self.pixels_per_unit)

    def turned(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates along and across a direction."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return self.x_HW * cos + self.y_HW * sin, self.y_HW * cos - self.x_HW * sin


@lru_cache
def grid(side_px: int, centred: bool) -> Grid:
    """A square drawing's grid; its origin is the upper left corner, or the middle."""
    units = (np.arange(side_px, dtype=np.float32) + 0.5) * np.float32(UNITS / side_px)
    units -= np.float32(UNITS / 2 if centred else 0)
    x_HW, y_HW = np.broadcast_to(units, (side_px, side_px)), np.broadcast_to(units[:, None], (side_px,) * 2)
    return Grid(np.ascontiguousarray(x_HW), np.ascontiguousarray(y_HW), side_px / UNITS)


def step(distance: np.ndarray, softness: float = 0.7) -> np.ndarray:
    """0 below zero, 1 above, with a ramp of `softness` between, which keeps thin things from flickering."""
    return np.clip(distance * np.float32(1 / softness) + np.float32(0.5), 0, 1)


def stripes(across: np.ndarray, period: float, share: float) -> np.ndarray:
    """1 on lines that cover `share` of the surface."""
    phase = across * np.float32(1 / period)
    phase -= np.floor(phase)
    from_middle = np.abs(phase - np.float32(0.5)) * np.float32(period)
    return step(np.float32(share * period / 2) - from_middle)


def dots(along: np.ndarray, across: np.ndarray, period: float, radius: float | np.ndarray) -> np.ndarray:
    """1 on discs in a square lattice."""
    u, v = along * np.float32(1 / period), across * np.float32(1 / period)
    u = u - np.floor(u) - np.float32(0.5)
    v = v - np.floor(v) - np.float32(0.5)
    return step(radius - np.float32(period) * np.sqrt(u * u + v * v))


def tiles(along: np.ndarray, across: np.ndarray, side: float, joint: float) -> tuple[np.ndarray, np.ndarray]:
    """(1 on the joints between square tiles, index of each pixel's tile in `noise_table`)."""
    u, v = along * np.float32(1 / side), across * np.float32(1 / side)
    column, row = np.floor(u), np.floor(v)
    from_edge = np.minimum(
        np.float32(0.5) - np.abs(u - column - np.float32(0.5)),
        np.float32(0.5) - np.abs(v - row - np.float32(0.5)),
    )
    index = (column.astype(np.int32) + 17 * row.astype(np.int32)) % _NOISE_SIDE
    return step(np.float32(joint / 2) - from_edge * np.float32(side)), index


def blur(field_HW: np.ndarray, radius: float, drawing: Grid) -> np.ndarray:
    """Gaussian blur of a field in 0..1; beyond the edges it goes on as it ends there."""
    picture = Image.fromarray((field_HW * 255).astype(np.uint8))
    blurred = picture.filter(ImageFilter.GaussianBlur(radius * drawing.pixels_per_unit))
    return np.asarray(blurred, np.float32) * np.float32(1 / 255)


def contour(mask_HW: np.ndarray, width: float, drawing: Grid) -> np.ndarray:
    """1 on a line of this width along the mask's edge."""
    soft = blur(mask_HW, width / 2, drawing)
    # Half a width from a straight edge, which is one sigma of the blur, this product is 4 x 0.841 x 0.159.
    return step((4 * soft * (1 - soft) - np.float32(0.535)) * np.float32(width * 0.75))


def clouds(drawing: Grid, seed: int, density: float) -> np.ndarray:
    """Smooth blotches, evenly distributed in 0..1; at density 1 about a quarter of the frame wide."""
    return _look_up(_clouds(), drawing.x_HW, drawing.y_HW, 3.0 * density, seed)


def streaks(along: np.ndarray, across: np.ndarray, grain: float, seed: int) -> np.ndarray:
    """Noise drawn out in one direction, evenly distributed in 0..1."""
    return _look_up(_streaks(), along, across, 3.0 / grain, seed)


@lru_cache
def noise_table(seed: int) -> np.ndarray:
    """Uniform numbers in -1..1 for `tiles`."""
    start = seed % 2**16
    return np.roll(_white().reshape(-1), start)[:_NOISE_SIDE] * 2 - 1


def _look_up(tile_HW: np.ndarray, u: np.ndarray, v: np.ndarray, scale: float, seed: int) -> np.ndarray:
    offset_u, offset_v = seed % _NOISE_SIDE, seed // _NOISE_SIDE % _NOISE_SIDE
    column = (u * np.float32(scale)).astype(np.int32) + offset_u
    row = (v * np.float32(scale)).astype(np.int32) + offset_v
    return tile_HW.reshape(-1)[(row & (_NOISE_SIDE - 1)) * _NOISE_SIDE + (column & (_NOISE_SIDE - 1))]


@lru_cache
def _white() -> np.ndarray:
    return np.random.default_rng(20240607).random((_NOISE_SIDE, _NOISE_SIDE)).astype(np.float32)


@lru_cache
def _clouds() -> np.ndarray:
    return _equalised(_blurred_tile(14, 14))


@lru_cache
def _streaks() -> np.ndarray:
    return _equalised(_blurred_tile(8, 2.0))


def _blurred_tile(sigma_x: float, sigma_y: float) -> np.ndarray:
    """White noise blurred around the corners, so that the tile repeats without a seam."""
    frequency = np.fft.fftfreq(_NOISE_SIDE)
    x, y = sigma_x * frequency[None, :], sigma_y * frequency[:, None]
    kernel = np.exp(-2 * np.pi**2 * (x**2 + y**2))
    return np.fft.ifft2(np.fft.fft2(_white()) * kernel).real


def _equalised(tile_HW: np.ndarray) -> np.ndarray:
    ranks = tile_HW.reshape(-1).argsort().argsort()
    return (ranks / ranks.size).astype(np.float32).reshape(tile_HW.shape)
