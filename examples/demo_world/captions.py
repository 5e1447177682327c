"""Captions in plain words. They name shape, scene and, for clips, motion; style only where asked for."""

import re
from typing import NamedTuple

from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import MOTIONS, SCENES, Content, Style

MOVING = (
    "a {shape} moving {motion} over the {scene}",
    "a {shape} moves {motion} above the {scene}",
    "over the {scene} a {shape} drifts {motion}",
    "a {shape} flies {motion} in front of the {scene}",
    "the {scene} and a {shape} moving {motion}",
)
STILL = (
    "a {shape} over the {scene}",
    "a {shape} above the {scene}",
    "over the {scene} a {shape}",
    "a {shape} in front of the {scene}",
    "the {scene} and a {shape}",
)
STYLED = (
    "{caption}, {style} style",
    "{caption} in the style of {style}",
    "{style} of {caption}",
    "{caption}, {style}, in {colours}",
)

_STYLE_NAMES = {
    "flat": "flat illustration",
    "outline": "line art",
    "hatching": "pen and ink drawing",
    "halftone": "halftone print",
    "watercolor": "watercolor painting",
    "mosaic": "mosaic",
    "woodcut": "woodcut print",
    "glow": "neon art",
    "crayon": "crayon drawing",
}


class Named(NamedTuple):
    """What a caption says; None where it says nothing."""

    shape: str | None
    scene: str | None
    motion: str | None


def caption(content: Content, variant: int, moving: bool) -> str:
    """The caption by one of the templates; `variant` may be any number."""
    templates = MOVING if moving else STILL
    template = templates[variant % len(templates)]
    return template.format(shape=content.shape, scene=content.scene, motion=content.motion)


def styled_caption(content: Content, style: Style, variant: int, moving: bool) -> str:
    """A caption that also names its style, as captions of collected pictures do."""
    templates = STYLED
    return templates[variant % len(templates)].format(
        caption=caption(content, variant // len(templates), moving),
        style=_STYLE_NAMES[style.family],
        colours=style.palette_class.replace("-", " and "),
    )


def parse_caption(text: str) -> Named:
    """The labels that a caption names."""
    words = set(re.findall("[a-z]+", text.lower()))
    return Named(
        *(next((name for name in names if name in words), None) for names in (SHAPES, SCENES, MOTIONS))
    )
