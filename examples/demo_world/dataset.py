"""The demo world as a stream: clip and still number `index`, drawn when asked for.

    sample = clip(seed=0, index=7)
    sample.frames_THWC, sample.depth_THW, sample.labels

A sample is a function of its arguments alone, so any number of processes may draw any part of the stream.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from examples.demo_world.captions import caption
from examples.demo_world.draw import draw_clip
from examples.demo_world.world import Content, Split, Style, content, neutral_style, style

Look = Literal["neutral", "styled"]
LOOKS: tuple[Look, ...] = get_args(Look)

DEFAULT_STYLES = 4096

_CLIP, _STILL, _CLIP_REFERENCE, _STILL_REFERENCE = range(4)  # content number = 4 * index + one of these


@dataclass(frozen=True)
class Labels:
    """What a sample shows and how. `style_id` is None for neutral samples: no two share their colours."""

    shape: str
    scene: str
    motion: str
    family: str
    palette: str  # palette class
    background: str
    style_id: str | None
    caption: str


@dataclass(frozen=True)
class Sample:
    """A clip, or a still as a clip of one frame."""

    frames_THWC: np.ndarray  # uint8, RGB
    depth_THW: np.ndarray  # uint8, larger is nearer
    labels: Labels
    content: Content
    style: Style


def clip(
    seed: int,
    index: int,
    *,
    split: Split = "train",
    look: Look = "styled",
    size: int = 64,
    frames: int = 8,
    styles: int = DEFAULT_STYLES,
) -> Sample:
    """Clip number `index`, whose caption names the motion.

    Args:
        split: "held-out" has contents and styles whose combinations "train" never has.
        look: "neutral" draws flat areas in free colours; "styled" takes style number `index % styles`.
        size: side of the square frame, in pixels; even, at least 16.
        styles: how many styles there are, so that samples `styles` apart share theirs.

    Raises:
        ValueError: an argument out of range.
    """
    thing = content(seed, 4 * index + _CLIP, split)
    return _sample(thing, _style(seed, index, split, look, styles), size, frames, moving=True)


def still(
    seed: int,
    index: int,
    *,
    split: Split = "train",
    look: Look = "styled",
    size: int = 64,
    styles: int = DEFAULT_STYLES,
) -> Sample:
    """Still number `index`, somewhere on the object's way; its caption does not name the motion.

    It has the style of the clip with its number and its own content. Arguments and errors as in `clip`.
    """
    thing = content(seed, 4 * index + _STILL, split)
    return _sample(thing, _style(seed, index, split, look, styles), size, frames=1, moving=False)


def reference(
    seed: int,
    index: int,
    *,
    of: Literal["clip", "still"] = "clip",
    split: Split = "train",
    look: Look = "styled",
    size: int = 64,
    styles: int = DEFAULT_STYLES,
) -> Sample:
    """A still of another shape in another scene, in the style of clip or still number `index`.

    Arguments and errors as in `clip`.
    """
    target_offset, own_offset = (_CLIP, _CLIP_REFERENCE) if of == "clip" else (_STILL, _STILL_REFERENCE)
    target = content(seed, 4 * index + target_offset, split)
    thing = content(seed, 4 * index + own_offset, split, unlike=target)
    return _sample(thing, _style(seed, index, split, look, styles), size, frames=1, moving=False)


def _style(seed: int, index: int, split: Split, look: Look, styles: int) -> Style:
    if look not in LOOKS:
        raise ValueError(f"look = {look!r}: must be one of {', '.join(LOOKS)}")
    if styles < 1:
        raise ValueError(f"styles = {styles}: must be at least 1")
    return neutral_style(seed, index, split) if look == "neutral" else style(seed, index % styles, split)


def _sample(thing: Content, look: Style, size: int, frames: int, moving: bool) -> Sample:
    frames_THWC, depth_THW = draw_clip(thing, look, size, frames)
    labels = Labels(
        shape=thing.shape,
        scene=thing.scene,
        motion=thing.motion,
        family=look.family,
        palette=look.palette_class,
        background=look.background,
        style_id=look.style_id if not look.is_neutral else None,
        caption=caption(thing, thing.layout, moving),
    )
    return Sample(frames_THWC, depth_THW, labels, thing, look)
