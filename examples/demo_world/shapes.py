"""Silhouettes of the moving objects, as polygons in a unit square around the origin."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

# Masks are float32 HW in 0..1. Points are (x, y) with y downwards, both in -0.5..0.5.

# Chosen of eight candidates: of any two, moved over each other as well as possible, less than half agrees.
SHAPES = ("star", "cross", "ring", "moon", "bolt")

_OVERSAMPLING = 2
_ARC_POINTS = 40

Points = list[tuple[float, float]]

_BOLT: Points = [
    (0.3, -0.5),
    (-0.1, -0.5),
    (-0.44, 0.1),
    (-0.08, 0.1),
    (-0.26, 0.5),
    (0.44, -0.12),
    (0.1, -0.12),
]


def shape_mask(shape: str, side_px: float, canvas_px: int) -> np.ndarray:
    """The silhouette in the middle of a square canvas, with smooth edges.

    Args:
        side_px: side of the square that the shape fills.
    """
    scale = _OVERSAMPLING
    picture = Image.new("L", (canvas_px * scale, canvas_px * scale))
    draw = ImageDraw.Draw(picture)
    middle, side = canvas_px * scale / 2, side_px * scale
    for points, ink in _outline(shape):
        draw.polygon([(middle + x * side, middle + y * side) for x, y in points], fill=ink)
    return np.asarray(picture.reduce(scale), np.float32) / 255


@lru_cache
def _outline(shape: str) -> list[tuple[Points, int]]:
    """Polygons to fill one after the other: with 255 inside, with 0 where the shape has a hole."""
    if shape == "star":
        return [(_star(), 255)]
    if shape == "cross":
        return [(_cross(arm=0.17), 255)]
    if shape == "ring":
        return [(_circle(0.5), 255), (_circle(0.24), 0)]
    if shape == "moon":
        return [(_crescent(), 255)]
    if shape == "bolt":
        return [(_BOLT, 255)]
    raise AssertionError(shape)


def _star(points: int = 5, inner: float = 0.44) -> Points:
    """Stretched to fill the square: a regular pentagram leaves its lower part empty."""
    turns = -np.pi / 2 + np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    x, y = radii * np.cos(turns), radii * np.sin(turns)
    return _fill_square(x, y)


def _cross(arm: float) -> Points:
    a, b = arm, 0.5
    quarter = [
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    return [*quarter, (-a, -b)]


def _circle(radius: float) -> Points:
    turns = np.linspace(0, 2 * np.pi, _ARC_POINTS, endpoint=False)
    return list(zip((radius * np.cos(turns)).tolist(), (radius * np.sin(turns)).tolist(), strict=True))


def _crescent(bite: float = 0.48, shift: float = 0.30) -> Points:
    """A disc less a smaller disc to its right."""
    cut_x = (0.25 - bite**2 + shift**2) / (2 * shift)
    cut_y = np.sqrt(0.25 - cut_x**2)
    outer = np.linspace(np.arctan2(cut_y, cut_x), 2 * np.pi - np.arctan2(cut_y, cut_x), _ARC_POINTS)
    inner_end = np.arctan2(cut_y, cut_x - shift)
    inner = np.linspace(2 * np.pi - inner_end, inner_end, _ARC_POINTS)
    x = np.concatenate([0.5 * np.cos(outer), shift + bite * np.cos(inner)])
    y = np.concatenate([0.5 * np.sin(outer), bite * np.sin(inner)])
    return _fill_square(x, y)


def _fill_square(x: np.ndarray, y: np.ndarray) -> Points:
    x = (x - (x.min() + x.max()) / 2) / np.ptp(x)
    y = (y - (y.min() + y.max()) / 2) / np.ptp(y)
    return list(zip(x.tolist(), y.tolist(), strict=True))
