"""Palettes: colours of one picture, drawn around a pair of hues that names the palette's class.

Colours are made in OKLCH (lightness, chroma, hue; B. Ottosson, "A perceptual color space for image processing",
2020), where equal steps look equal, so that contrast can be promised whatever the hues.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# A colour is three floats in 0..1, sRGB.

Colour = tuple[float, float, float]
Uniform = Callable[[float, float], float]  # a draw between two bounds

_HUES = {"red": 25.0, "yellow": 91.0, "green": 145.0, "cyan": 205.0, "blue": 262.0, "magenta": 330.0}
_NAMES = tuple(_HUES)
# Lightness at which an object of this hue is most colourful: before a light scene and before a dark one.
_OBJECT_LIGHTNESS = {
    "red": (0.56, 0.66),
    "yellow": (0.74, 0.85),
    "green": (0.58, 0.78),
    "cyan": (0.6, 0.82),
    "blue": (0.5, 0.66),
    "magenta": (0.56, 0.7),
}
_HUE_JITTER = 9.0

# The scene's hue and the object's: far apart, and each hue twice in each place.
PALETTES = tuple(f"{name}-{_NAMES[(i + step) % 6]}" for step in (2, 3) for i, name in enumerate(_NAMES))


@dataclass(frozen=True)
class Palette:
    """What the layers of a picture are painted with."""

    sky: Colour
    far: Colour
    near: Colour
    detail: Colour  # windows, crests of waves
    object: Colour
    ink: Colour  # the darkest: contours
    paper: Colour  # the lightest: what shows between strokes


def palette_of_class(name: str, uniform: Uniform) -> Palette:
    """A palette of one of `PALETTES`; the draws decide shades, not the class."""
    scene, thing = (_HUES[hue] + uniform(-_HUE_JITTER, _HUE_JITTER) for hue in name.split("-"))
    strength = uniform(0.85, 1.15)
    light = uniform(0, 1) < 0.6
    thing_lightness = _OBJECT_LIGHTNESS[name.split("-")[1]][0 if light else 1] + uniform(-0.03, 0.03)
    if light:
        sky, far, near = uniform(0.86, 0.92), uniform(0.62, 0.69), uniform(0.38, 0.45)
    else:
        sky, far, near = uniform(0.24, 0.30), uniform(0.37, 0.43), uniform(0.50, 0.56)
    return Palette(
        sky=oklch(sky, 0.075 * strength, scene),
        far=oklch(far, 0.13 * strength, scene),
        near=oklch(near, 0.13 * strength, scene),
        detail=oklch(0.9, 0.07 * strength, scene),
        object=oklch(thing_lightness, 0.21 * strength, thing),
        ink=oklch(uniform(0.18, 0.26), 0.06, scene),
        paper=oklch(uniform(0.92, 0.96), 0.035, scene),
    )


def free_palette(uniform: Uniform) -> Palette:
    """Any hues in any place: the neutral style. The object differs from every layer in lightness or in hue."""
    thing = uniform(0, 360)
    # The scene keeps 80 degrees away from the object, so that no layer swallows it.
    sky, far, near = (thing + uniform(80, 280) for _ in range(3))
    light_sky = uniform(0, 1) < 0.5
    sky_lightness = uniform(0.84, 0.93) if light_sky else uniform(0.2, 0.3)
    far_lightness = uniform(0.42, 0.5)
    near_lightness = uniform(0.24, 0.32) if light_sky else uniform(0.84, 0.92)
    return Palette(
        sky=oklch(sky_lightness, uniform(0.04, 0.12), sky),
        far=oklch(far_lightness, uniform(0.06, 0.13), far),
        near=oklch(near_lightness, uniform(0.06, 0.13), near),
        detail=oklch(0.92 if near_lightness < 0.6 else 0.25, 0.05, near),
        object=oklch(uniform(0.62, 0.72), 0.24, thing),
        ink=oklch(0.2, 0.03, sky),
        paper=oklch(0.95, 0.02, sky),
    )


def oklch(lightness: float, chroma: float, hue_degrees: float) -> Colour:
    """An sRGB colour; what sRGB cannot show loses chroma and keeps lightness and hue."""
    for share in np.linspace(1, 0, 11):
        rgb = _linear_rgb(lightness, chroma * float(share), np.deg2rad(hue_degrees))
        if rgb.min() >= -0.001 and rgb.max() <= 1.001:
            break
    rgb = np.clip(rgb, 0, 1)
    encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return float(encoded[0]), float(encoded[1]), float(encoded[2])


def _linear_rgb(lightness: float, chroma: float, hue: float) -> np.ndarray:
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return np.array(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    )
