"""How each style family paints a layer: one function per family.

Every family must be told from a still of any content, so each marks all layers, the object most clearly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from examples.demo_world.palettes import Colour
from examples.demo_world.scenes import Layer
from examples.demo_world.textures import (
    Grid,
    blur,
    clouds,
    contour,
    dots,
    noise_table,
    step,
    streaks,
    stripes,
    tiles,
)
from examples.demo_world.world import Style

# Colour fields are float32 HWC (or one colour, C) in 0..1, masks and opacities float32 HW; lengths are in units.


@dataclass(frozen=True)
class Paint:
    """What a layer covers the picture with."""

    colour_HWC: np.ndarray
    opacity_HW: np.ndarray


Painter = Callable[[Layer, Style, Grid], Paint]


def paint(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """One layer in its style, on a drawing that is as large as its mask."""
    return _PAINTERS[style.family](layer, style, drawing)


def _flat(layer: Layer, style: Style, drawing: Grid) -> Paint:
    return Paint(_own(layer, style), layer.mask_HW)


def _outline(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Pale areas with bold contours; the object's contour has its own colour."""
    own, paper, ink = _own(layer, style), _rgb(style.palette.paper), _rgb(style.palette.ink)
    if layer.role == "sky":
        return Paint(_mix(paper, own, 0.12), layer.mask_HW)
    if layer.role == "detail":
        return Paint(ink, layer.mask_HW * np.float32(0.6))
    width = _stroke(style, 2.2, 3.4) * (1.25 if layer.role == "object" else 1.0)
    line = contour(layer.mask_HW, width, drawing)
    pale = _mix(paper, own, 0.3 if layer.role == "object" else 0.22)
    dark = _mix(own, ink, 0.15) if layer.role == "object" else _mix(own, ink, 0.4)
    return Paint(_mix(pale, dark, line), np.maximum(layer.mask_HW, line))


def _hatching(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Thin straight strokes on tinted paper, turned from layer to layer."""
    own, paper, ink = _own(layer, style), _rgb(style.palette.paper), _rgb(style.palette.ink)
    if layer.role == "detail":
        return Paint(paper, layer.mask_HW * np.float32(0.75))
    turns = {"sky": 0.0, "far": 1.0, "near": 2.0, "object": 0.5}
    _, across = drawing.turned(style.angle + turns[layer.role] * np.pi / 3)
    share = _stroke(style, 0.34, 0.46) * (0.6 if layer.role == "sky" else 1.0)
    line = stripes(across, _scale(style, 6.0, 8.4), share)
    if layer.role == "object":
        edge = contour(layer.mask_HW, 1.8, drawing)
        return Paint(_mix(_mix(paper, own, 0.5), _mix(own, ink, 0.35), np.maximum(line, edge)), layer.mask_HW)
    if layer.role != "sky":
        line = np.maximum(line, contour(layer.mask_HW, 1.8, drawing))
    tints = {"sky": 0.05, "far": 0.18, "near": 0.32}
    return Paint(_mix(_mix(paper, own, tints[layer.role]), own, line), layer.mask_HW)


def _halftone(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Print dots on tinted paper, larger towards the front; the object is solid with dots left out."""
    own, paper, ink = _own(layer, style), _rgb(style.palette.paper), _rgb(style.palette.ink)
    if layer.role == "detail":
        return Paint(paper, layer.mask_HW * np.float32(0.75))
    period = _scale(style, 6.4, 9.0)
    radii = {"sky": 0.22, "far": 0.36, "near": 0.4, "object": 0.27}
    dot = dots(*drawing.turned(style.angle), period, period * radii[layer.role] * _stroke(style, 0.9, 1.1))
    if layer.role == "object":
        dot = dot * (1 - contour(layer.mask_HW, 3.2, drawing))  # dots that cut the edge would hide the shape
        return Paint(_mix(own, _mix(paper, own, 0.1), dot), layer.mask_HW)
    tints = {"sky": 0.06, "far": 0.32, "near": 0.7}
    return Paint(_mix(_mix(paper, own, tints[layer.role]), _mix(own, ink, 0.15), dot), layer.mask_HW)


def _watercolor(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Washes that thin out in blotches and bleed over wavering edges."""
    own, paper = _own(layer, style), _rgb(style.palette.paper)
    if layer.role == "sky":
        own = _mix(own, paper, 0.4)  # a dark sky would hide the blotches of what stands before it
    seed = style.grain + 977 * _ORDER[layer.role]
    blotches = clouds(drawing, seed, 1.0)
    thinnest = {"sky": 0.75, "far": 0.6, "near": 0.45, "detail": 0.5, "object": 0.4}[layer.role]
    wash = _mix(own, paper, np.clip(np.float32(1.2) * blotches - np.float32(0.3), 0, thinnest))
    if layer.role == "sky":
        return Paint(wash, layer.mask_HW)
    soft = blur(layer.mask_HW, _stroke(style, 1.1, 1.7), drawing)
    if layer.role == "detail":
        return Paint(wash, soft * np.float32(0.8))
    waver = (clouds(drawing, seed + 7, 2.5) - np.float32(0.5)) * np.float32(0.35)
    edge = soft + waver
    pigment = np.clip(1 - np.abs(edge - np.float32(0.62)) * np.float32(4), 0, 1) * np.float32(0.3)
    return Paint(_mix(wash, _rgb(style.palette.ink), pigment), step(edge - np.float32(0.45), 0.45))


def _mosaic(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Square tiles, each a little lighter or darker, set with joints and along every edge."""
    own, ink, paper = _own(layer, style), _rgb(style.palette.ink), _rgb(style.palette.paper)
    dark_scene = sum(style.palette.sky) < sum(style.palette.near)  # there, joints of ink would not be seen
    mortar = _mix(own, paper, 0.6) if dark_scene or style.stroke_width > 0.5 else _mix(own, ink, 0.75)
    if layer.role == "detail":
        return Paint(mortar, layer.mask_HW)
    width = _stroke(style, 1.3, 1.7)
    joint, index = tiles(*drawing.turned(style.angle), _scale(style, 7.4, 10.0), width)
    spread = {"sky": 0.15, "far": 0.15, "near": 0.15, "object": 0.1}[layer.role]
    shade = noise_table(style.grain + 31 * _ORDER[layer.role])[index] * np.float32(spread)
    tile = np.clip(own + shade[..., None], 0, 1)
    if layer.role == "sky":
        return Paint(_mix(tile, mortar, joint), layer.mask_HW)
    edge = contour(layer.mask_HW, width * 1.4, drawing)
    if layer.role == "object":
        joint = joint * np.float32(0.6)
    return Paint(_mix(tile, mortar, np.maximum(joint, edge)), np.maximum(layer.mask_HW, edge))


def _woodcut(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Broad wavy cuts that leave ink in ridges; contours in ink."""
    own, ink, paper = _own(layer, style), _rgb(style.palette.ink), _rgb(style.palette.paper)
    if layer.role == "detail":
        return Paint(paper, layer.mask_HW * np.float32(0.75))
    along, across = drawing.turned(style.angle)
    period = _scale(style, 8.0, 11.0)
    waved = across + np.float32(2.2) * np.sin(along * np.float32(2 * np.pi / 22) + _ORDER[layer.role] * 1.7)
    shares = {"sky": 0.3, "far": 0.42, "near": 0.55, "object": 0.38}
    ridge = stripes(waved, period, shares[layer.role] * _stroke(style, 0.9, 1.1))
    if layer.role == "sky":
        return Paint(_mix(_mix(own, paper, 0.25), ink, ridge * np.float32(0.55)), layer.mask_HW)
    edge = contour(layer.mask_HW, 2.0, drawing)
    strength = 0.65 if layer.role == "object" else 0.7
    marks = np.maximum(ridge * np.float32(strength), edge * np.float32(0.85))
    return Paint(_mix(own, ink, marks), np.maximum(layer.mask_HW, edge))


def _glow(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Night: edges shine and fade, the object is a lamp with a halo."""
    own, ink, white = _own(layer, style), _rgb(style.palette.ink), _rgb((1.0, 1.0, 1.0))
    night = ink * np.float32(0.6)
    if layer.role == "sky":
        return Paint(_mix(night, own, 0.1), layer.mask_HW)
    if layer.role == "detail":
        return Paint(_mix(own, white, 0.3), layer.mask_HW)
    soft = blur(layer.mask_HW, _stroke(style, 2.2, 3.6), drawing)
    if layer.role == "object":
        lamp = _mix(own, white, np.clip(soft * soft - np.float32(0.3), 0, 1) * layer.mask_HW)
        return Paint(lamp, np.maximum(layer.mask_HW, soft * np.float32(1.2)).clip(0, 1))
    bright = _mix(own, white, 0.2)
    shine = np.clip((1 - soft) * np.float32(1.9), 0, 1) ** 2 * layer.mask_HW
    halo = soft * (1 - layer.mask_HW) * np.float32(0.9)
    return Paint(
        _mix(_mix(night, own, 0.3), bright, np.maximum(shine, halo)), np.maximum(layer.mask_HW, halo)
    )


def _crayon(layer: Layer, style: Style, drawing: Grid) -> Paint:
    """Waxy strokes on rough paper: grain shows through and edges are ragged."""
    own, paper = _own(layer, style), _rgb(style.palette.paper)
    grain = streaks(
        *drawing.turned(style.angle), _scale(style, 1.3, 1.8), style.grain + 977 * _ORDER[layer.role]
    )
    covers = {"sky": 0.4, "far": 0.7, "near": 0.78, "detail": 0.9, "object": 0.86}
    wax = step(np.float32(covers[layer.role] + _stroke(style, -0.05, 0.05)) - grain, 0.25)
    if layer.role == "sky":
        return Paint(_mix(paper, own, wax * np.float32(0.65)), layer.mask_HW)
    ragged = step(blur(layer.mask_HW, 1.0, drawing) - np.float32(0.3) - grain * np.float32(0.4), 0.3)
    gap = _mix(paper, own, 0.1 if layer.role == "object" else 0.4)
    return Paint(_mix(gap, own, wax), ragged)


_PAINTERS: dict[str, Painter] = {
    "flat": _flat,
    "outline": _outline,
    "hatching": _hatching,
    "halftone": _halftone,
    "watercolor": _watercolor,
    "mosaic": _mosaic,
    "woodcut": _woodcut,
    "glow": _glow,
    "crayon": _crayon,
}
_ORDER = {"sky": 0, "far": 1, "near": 2, "detail": 3, "object": 4}


def _own(layer: Layer, style: Style) -> np.ndarray:
    return _rgb(getattr(style.palette, layer.role))


def _rgb(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)


def _mix(first: np.ndarray, second: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    """`first` where share is 0, `second` where it is 1; colours may be one colour or a field of them."""
    if isinstance(share, np.ndarray):
        share = share[..., None]
    return first + (second - first) * np.asarray(share, np.float32)


def _stroke(style: Style, finest: float, boldest: float) -> float:
    return finest + (boldest - finest) * style.stroke_width


def _scale(style: Style, densest: float, widest: float) -> float:
    return densest + (widest - densest) * style.stroke_scale
