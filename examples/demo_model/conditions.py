"""What the demo model is asked for when it is measured: held-out prompts, references in held-out styles.

Condition number `index` is a function of (seed, index), so that any two models are asked for the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from examples.demo_model.judges import VALUES, Judges
from examples.demo_world.dataset import Labels, Look, clip, reference

# Shapes: N clips, T frames, H, W pixels, C = 3 colours; frames uint8, RGB.

EVALUATION_SEED = 9001
GATE_SEED = 9002  # another: what decides during the training is not what measures after it
CONTENT = ("shape", "scene", "motion")
STYLE = ("family", "palette")


@dataclass(frozen=True)
class Condition:
    """One video to ask for, and what it should become.

    Attributes:
        labels: shape, scene and motion are the prompt's, family and palette the reference's.
        frames_THWC: a true clip of these labels.
        reference_HWC: a still in its style, of another shape in another scene.
    """

    index: int
    prompt: str
    labels: Labels
    frames_THWC: np.ndarray
    reference_HWC: np.ndarray


def condition(seed: int, index: int, look: Look = "styled") -> Condition:
    """Condition number `index` of those held out from every training."""
    target = clip(seed, index, split="held-out", look=look)
    picture = reference(seed, index, split="held-out", look=look)
    return Condition(index, target.labels.caption, target.labels, target.frames_THWC, picture.frames_THWC[0])


def judged_right(
    judges: Judges, frames_NTHWC: np.ndarray, conditions: Sequence[Condition], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Per label, bool [N]: whether the judges see in each clip what was asked for."""
    probabilities = judges.probabilities(frames_NTHWC)
    return {
        name: np.array(
            [
                VALUES[name][seen] == getattr(one.labels, name)
                for seen, one in zip(probabilities[name].argmax(1).tolist(), conditions, strict=True)
            ]
        )
        for name in names
    }
