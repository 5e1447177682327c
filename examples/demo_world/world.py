"""What there is to draw: contents and styles, how they are drawn from a seed, and which combinations are held out.

Everything is a function of (seed, split, purpose, number): it does not matter which process asks, or in what
order. Draws use nothing but a generator's uniform numbers, which numpy keeps the same between versions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal, TypeVar, get_args

import numpy as np

from examples.demo_world.palettes import PALETTES, Palette, free_palette, palette_of_class
from examples.demo_world.shapes import SHAPES

Split = Literal["train", "held-out"]

SPLITS: tuple[Split, ...] = get_args(Split)
SCENES = ("hills", "sea", "city")
MOTIONS = ("left", "right", "up", "down")
FAMILIES = ("outline", "hatching", "halftone", "watercolor", "mosaic", "woodcut", "glow", "crayon")
NEUTRAL_FAMILY = "flat"
NEUTRAL_PALETTE = "free"
BACKGROUNDS = ("plain", "gradient", "vignette", "frame")

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (x, y), y downwards
BORDER = 0.03  # share of the frame's side that the object keeps free at the end of its way

_SIZES = (0.4, 0.47)
_START_JITTER = 0.04
_PURPOSES = {"content": 1, "style": 2, "neutral": 3}

Value = TypeVar("Value")


@dataclass(frozen=True)
class Content:
    """What a picture or clip shows. Lengths are shares of the frame's side."""

    shape: str
    scene: str
    motion: str
    size: float  # side of the square that the shape fills
    start: tuple[float, float]  # the object's centre in the first frame, (x, y), y downwards
    progress: float  # 0..1: where on its way a still shows it
    layout: int  # seed of the scene's details: heights, phases, windows

    @property
    def combination(self) -> tuple[str, str, str]:
        return self.shape, self.scene, self.motion


@dataclass(frozen=True)
class Style:
    """How it is drawn. Lengths are in pixels of a frame of 64 x 64; larger frames scale them."""

    style_id: str
    family: str
    palette_class: str
    palette: Palette
    background: str
    stroke_width: float  # 0..1, from the family's finest to its boldest stroke
    stroke_scale: float  # 0..1, from its densest to its widest texture
    angle: float  # radians
    grain: int  # seed of its noise

    @property
    def combination(self) -> tuple[str, str]:
        return self.family, self.palette_class

    @property
    def is_neutral(self) -> bool:
        return self.family == NEUTRAL_FAMILY


@lru_cache
def content_combinations(split: Split) -> tuple[tuple[str, str, str], ...]:
    """(shape, scene, motion): 50 to train on, 10 held out, two of each shape."""
    _check_split(split)
    held_out = {
        (shape, SCENES[(i + j) % len(SCENES)], MOTIONS[(i + 2 * j) % len(MOTIONS)])
        for i, shape in enumerate(SHAPES)
        for j in range(2)
    }
    everything = product(SHAPES, SCENES, MOTIONS)
    return tuple(one for one in everything if (one in held_out) == (split == "held-out"))


@lru_cache
def style_combinations(split: Split) -> tuple[tuple[str, str], ...]:
    """(family, palette class): 80 to train on, 16 held out, two of each family and at least one of each class.

    Ordered so that any stretch of them holds the families evenly.
    """
    _check_split(split)
    count = len(PALETTES)
    chosen: dict[str, list[str]] = {}
    for i, family in enumerate(FAMILIES):
        held_out = {PALETTES[5 * i % count], PALETTES[5 * (i + 4) % count]}
        turned = [PALETTES[(7 * i + 5 * j) % count] for j in range(count)]
        chosen[family] = [name for name in turned if (name in held_out) == (split == "held-out")]
    rounds = len(chosen[FAMILIES[0]])
    return tuple((family, chosen[family][j]) for j in range(rounds) for family in FAMILIES)


def content(seed: int, number: int, split: Split = "train", unlike: Content | None = None) -> Content:
    """The content with this number; with `unlike`, one of another shape and another scene than that."""
    rng = _generator(seed, split, "content", number)
    combinations = content_combinations(split)
    if unlike is not None:
        combinations = tuple(c for c in combinations if c[0] != unlike.shape and c[1] != unlike.scene)
    shape, scene, motion = _one_of(rng, combinations)
    return Content(
        shape=shape,
        scene=scene,
        motion=motion,
        size=_between(rng, *_SIZES),
        start=(0.5 + _between(rng, -1, 1) * _START_JITTER, 0.5 + _between(rng, -1, 1) * _START_JITTER),
        progress=rng.random(),
        layout=int(rng.random() * 2**31),
    )


def style(seed: int, number: int, split: Split = "train") -> Style:
    """The style with this number; neighbouring numbers have different families."""
    rng = _generator(seed, split, "style", number)
    combinations = style_combinations(split)
    family, palette_class = combinations[number % len(combinations)]
    palette = palette_of_class(palette_class, lambda low, high: _between(rng, low, high))
    return Style(
        style_id=f"{split}-{seed}-{number}",
        family=family,
        palette_class=palette_class,
        palette=palette,
        background=_one_of(rng, BACKGROUNDS),
        stroke_width=rng.random(),
        stroke_scale=rng.random(),
        angle=_between(rng, 0, np.pi),
        grain=int(rng.random() * 2**31),
    )


def neutral_style(seed: int, number: int, split: Split = "train") -> Style:
    """Flat areas in colours that have nothing to do with what is shown."""
    rng = _generator(seed, split, "neutral", number)
    return Style(
        style_id=f"neutral-{split}-{seed}-{number}",
        family=NEUTRAL_FAMILY,
        palette_class=NEUTRAL_PALETTE,
        palette=free_palette(lambda low, high: _between(rng, low, high)),
        background="plain",
        stroke_width=0.5,
        stroke_scale=0.5,
        angle=0.0,
        grain=0,
    )


def positions(content: Content, frames: int) -> np.ndarray:
    """Centres of the object, float [T, 2] as (x, y): from its start, evenly, almost to the named side."""
    start = np.array(content.start)
    direction = np.array(DIRECTIONS[content.motion])
    reach = 0.5 + direction * (0.5 - BORDER - content.size / 2)
    end = np.where(direction != 0, reach, start)
    share_T = np.linspace(0, 1, frames) if frames > 1 else np.array([content.progress])
    return start + (end - start) * share_T[:, None]


def _generator(seed: int, split: Split, purpose: str, number: int) -> np.random.Generator:
    _check_split(split)
    for name, value in (("seed", seed), ("number", number)):
        if value < 0:
            raise ValueError(f"{name} = {value}: must be at least 0")
    return np.random.default_rng((seed, SPLITS.index(split), _PURPOSES[purpose], number))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split = {split!r}: must be one of {', '.join(SPLITS)}")


def _one_of(rng: np.random.Generator, values: Sequence[Value]) -> Value:
    return values[int(rng.random() * len(values))]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()
