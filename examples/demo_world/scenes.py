"""Scenes as stacks of layers, from the sky forwards. They differ in their lines, whatever their colours."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from examples.demo_world.textures import UNITS, Grid, step, stripes

# Masks are float32 HW in 0..1; lengths are in units (pixels of a frame of 64 x 64).

Role = Literal["sky", "far", "near", "detail", "object"]

DEPTHS = {"sky": 8, "far": 72, "near": 128, "object": 232}  # uint8, larger is nearer, as in inverse depth


@dataclass(frozen=True)
class Layer:
    """A part of the scene and which of the palette's colours it has."""

    role: Role
    mask_HW: np.ndarray
    depth: int


def scene_layers(scene: str, layout: int, drawing: Grid) -> list[Layer]:
    """The layers of a scene; `layout` decides heights, phases and windows."""
    rng = np.random.default_rng(layout)
    sky = Layer("sky", np.ones_like(drawing.x_HW), DEPTHS["sky"])
    if scene == "hills":
        return [sky, *_hills(rng, drawing)]
    if scene == "sea":
        return [sky, *_sea(rng, drawing)]
    if scene == "city":
        return [sky, *_city(rng, drawing)]
    raise AssertionError(scene)


def _hills(rng: np.random.Generator, drawing: Grid) -> list[Layer]:
    return [
        _below("far", _mounds(rng, drawing, base=50.0, height=24.0, width=40.0), drawing),
        _below("near", _mounds(rng, drawing, base=64.0, height=19.0, width=52.0), drawing),
    ]


def _mounds(rng: np.random.Generator, drawing: Grid, base: float, height: float, width: float) -> np.ndarray:
    height *= _around(rng, 1, 0.1)
    phase = rng.random() * np.pi
    return base - height * np.abs(np.sin(drawing.x_HW[:1] * np.float32(np.pi / width) + np.float32(phase)))


def _sea(rng: np.random.Generator, drawing: Grid) -> list[Layer]:
    horizon = _around(rng, 34, 1.5)
    water = _below("far", np.full_like(drawing.x_HW[:1], horizon), drawing)
    near = _waves(rng, drawing, base=_around(rng, 53, 1.5))
    crests = np.zeros_like(drawing.x_HW)
    for y in (horizon + 6, horizon + 12):
        ripple = 0.9 * np.sin(drawing.x_HW[:1] * 0.5 + rng.random() * 7)
        dashes = stripes(drawing.x_HW[:1] + rng.random() * 20, period=21.0, share=0.6)
        crests = np.maximum(crests, step(1.0 - np.abs(drawing.y_HW - y - ripple)) * dashes)
    return [water, Layer("detail", crests, DEPTHS["far"]), _below("near", near, drawing)]


def _waves(rng: np.random.Generator, drawing: Grid, base: float) -> np.ndarray:
    """Pointed crests, round troughs."""
    width = _around(rng, 13, 1)
    phase = rng.random() * np.pi
    return base + 5 * np.abs(np.sin(drawing.x_HW[:1] * np.float32(np.pi / width) + np.float32(phase)))


def _city(rng: np.random.Generator, drawing: Grid) -> list[Layer]:
    far, _ = _blocks(rng, drawing, tops=(16.0, 38.0), widths=(8.0, 12.0))
    near, edges = _blocks(rng, drawing, tops=(40.0, 50.0), widths=(11.0, 14.0))
    x, y = drawing.x_HW[:1] - edges, drawing.y_HW - near
    columns, rows = stripes(x - 2.6, period=7.0, share=0.5), stripes(y - 0.5, period=8.0, share=0.5)
    windows = columns * rows * step(y - 1.5)
    return [
        _below("far", far, drawing),
        _below("near", near, drawing),
        Layer("detail", windows, DEPTHS["near"]),
    ]


def _blocks(
    rng: np.random.Generator, drawing: Grid, tops: tuple[float, float], widths: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Roof line and left edge of the house at each x. Neighbours differ in height by turns: high, low, high."""
    middle = (tops[0] + tops[1]) / 2
    line, edges = np.empty_like(drawing.x_HW[:1]), np.empty_like(drawing.x_HW[:1])
    edge = -rng.random() * widths[0]
    high = rng.random() < 0.5
    while edge < UNITS:
        low, upper = (tops[0], middle - 2) if high else (middle + 2, tops[1])
        width = widths[0] + (widths[1] - widths[0]) * rng.random()
        house = drawing.x_HW[:1] >= edge
        line[house] = low + (upper - low) * rng.random()
        edges[house] = edge
        edge += width
        high = not high
    return line, edges


def _below(role: Literal["far", "near"], line: np.ndarray, drawing: Grid) -> Layer:
    return Layer(role, step(drawing.y_HW - line, softness=1 / drawing.pixels_per_unit), DEPTHS[role])


def _around(rng: np.random.Generator, value: float, spread: float) -> float:
    return value + (2 * rng.random() - 1) * spread
