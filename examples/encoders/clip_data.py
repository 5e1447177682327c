"""What a CLIP is trained on: pictures or clips of some frames, captions, and which of them go together.

Shapes: N samples, T frames, H, W pixels, C = 3 colours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from examples.demo_world.captions import MOVING, STILL, STYLED, caption, styled_caption
from examples.demo_world.dataset import Look, Sample, clip
from examples.demo_world.palettes import PALETTES
from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import FAMILIES, MOTIONS, SCENES, Split
from examples.encoders.pictures import manifest_pictures

UNKNOWN = -1
"""The number of a label that a sample does not have, or a caption does not name."""

VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "scene": SCENES,
    "motion": MOTIONS,
    "family": FAMILIES,
    "palette": PALETTES,
}
CLIP_FRAMES = 8  # from the first to the last
STYLED_SHARE = 0.7  # of the demo world's samples; captions of the others never name a style


@dataclass(frozen=True)
class Caption:
    """A caption and the labels that it names."""

    text: str
    named: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipData:
    """Samples in memory.

    Args:
        frames_NTHWC: uint8; T = 1 for pictures.
        captions: of each sample, any of which may be drawn.
        labels: numbers into VALUES, int [N] each, UNKNOWN where there is none; no entries without labels.
    """

    frames_NTHWC: np.ndarray
    captions: Sequence[Sequence[Caption]]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames_NTHWC)

    def fitting(self, samples: Sequence[int], captions: Sequence[Caption]) -> np.ndarray:
        """Which captions are true of which samples, bool [N, N]: some captions name less than others.

        Without labels, a sample's own caption and its equals.
        """
        if not self.labels:
            texts = np.array([one.text for one in captions])
            return texts[:, None] == texts[None, :]
        fits = np.ones((len(samples), len(captions)), bool)
        for name, of_all in self.labels.items():
            named = np.array([one.named.get(name, UNKNOWN) for one in captions])
            fits &= (named == UNKNOWN)[None, :] | (named[None, :] == of_all[list(samples)][:, None])
        return fits


def manifest_data(uri: str, count: int, size: int, seed: int) -> ClipData:
    """Pictures of a training manifest with their captions.

    Raises:
        ManifestError, ValueError: as `manifest_pictures`.
    """
    pictures_NHWC, texts = manifest_pictures(uri, count, size, seed)
    return ClipData(pictures_NHWC[:, None], [[Caption(text)] for text in texts])


def demo_data(count: int, seed: int, split: Split = "train", size: int = 64) -> ClipData:
    """Clips of the demo world, styled and neutral; their captions name the motion or not, the style or not."""
    looks: list[Look] = ["styled" if i < round(count * STYLED_SHARE) else "neutral" for i in range(count)]
    samples = [
        clip(seed, i, look=look, split=split, size=size, frames=CLIP_FRAMES) for i, look in enumerate(looks)
    ]
    return ClipData(
        np.stack([sample.frames_THWC for sample in samples]),
        [_captions(sample) for sample in samples],
        {
            name: np.array([number(name, getattr(sample.labels, name)) for sample in samples])
            for name in VALUES
        },
    )


def number(name: str, value: str) -> int:
    """The place of a label among VALUES; UNKNOWN for the neutral style's."""
    return VALUES[name].index(value) if value in VALUES[name] else UNKNOWN


def _captions(sample: Sample) -> list[Caption]:
    """Eight of them: half name the motion, and half of a styled sample's name the style."""
    found = []
    for i in range(8):
        moving = i % 2 == 0
        variant = sample.content.layout + i // 4
        names = ["shape", "scene", "motion"] if moving else ["shape", "scene"]
        if i % 4 < 2 or sample.style.is_neutral:
            text = caption(sample.content, variant, moving)
        else:
            text = styled_caption(sample.content, sample.style, variant, moving)
            names.append("family")
            if STYLED[variant % len(STYLED)].find("{colours}") >= 0:
                names.append("palette")
        found.append(Caption(text, {name: number(name, getattr(sample.labels, name)) for name in names}))
    return found


def every_word() -> set[str]:
    """All words of the demo world's captions."""
    words: set[str] = set()
    for index in range(96):
        sample = clip(0, index, size=16, frames=1)
        for variant in range(len(STYLED) * len(MOVING)):
            words.update(
                styled_caption(sample.content, sample.style, variant, moving=True).replace(",", " ").split()
            )
            words.update(caption(sample.content, variant % len(STILL), moving=False).split())
    return words
