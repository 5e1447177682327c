"""From scores per video to figures with 95 % intervals, and to a table for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from examples.demo_model.conditions import CONTENT
from examples.demo_model.intervals import bootstrap, wilson
from examples.demo_model.scoring import JUDGED, SIMILARITIES, Scores

_DIGITS = 4
_HEADS = {
    "shape": "shape",
    "scene": "scene",
    "motion": "motion",
    "family": "style family",
    "palette": "palette",
    "clip_style": "CLIP-Style",
    "clip_text": "CLIP-Text",
}
# Figure names that others read, and where they come from: (variant, score).
_FIGURES = {
    "shape_accuracy": ("full", "shape"),
    "scene_accuracy": ("full", "scene"),
    "motion_accuracy": ("full", "motion"),
    "style_accuracy": ("full", "family"),
    "palette_accuracy": ("full", "palette"),
    "style_accuracy_no_adapter": ("no_adapter", "family"),
    "style_accuracy_shuffled": ("shuffled", "family"),
}


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of_share(cls, right_N: np.ndarray) -> "Estimate":
        low, high = wilson(int(right_N.sum()), len(right_N))
        return cls(float(right_N.mean()), low, high, len(right_N))

    @classmethod
    def of_mean(cls, values_N: np.ndarray) -> "Estimate":
        low, high = bootstrap(values_N)
        return cls(float(values_N.mean()), low, high, len(values_N))

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, _DIGITS) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimates(found: Scores) -> dict[str, Estimate]:
    """Of every score of one variant."""
    return {name: Estimate.of_share(found[name]) for name in JUDGED} | {
        name: Estimate.of_mean(found[name]) for name in SIMILARITIES
    }


def content_loss(with_style: Scores, without_style: Scores) -> dict[str, Estimate]:
    """Accuracy without style minus accuracy with it, video by video: of each label, and of their mean ("all").

    Raises:
        ValueError: they are not of the same videos.
    """
    sizes = len(with_style[CONTENT[0]]), len(without_style[CONTENT[0]])
    if sizes[0] != sizes[1]:
        raise ValueError(f"{sizes[0]} videos with style and {sizes[1]} without: they must be the same")
    lost = {name: without_style[name].astype(float) - with_style[name] for name in CONTENT}
    return {name: Estimate.of_mean(lost_N) for name, lost_N in lost.items()} | {
        "all": Estimate.of_mean(np.mean(list(lost.values()), axis=0))
    }


def figures(everything: Mapping[str, Mapping[str, Estimate]], lost: Mapping[str, Estimate]) -> list[Figure]:
    """What was measured, under the names of the project's figures; `spread` is the 95 % interval."""
    found = [
        _figure(name, everything[variant][score])
        for name, (variant, score) in _FIGURES.items()
        if variant in everything
    ]
    return [*found, _figure("content_loss", lost["all"])] if lost else found


def metrics(
    everything: Mapping[str, Mapping[str, Estimate]], lost: Mapping[str, Estimate], how: Mapping[str, Any]
) -> dict[str, Any]:
    """What metrics.json holds."""
    return {
        "figures": [json.loads(one.as_json_line()) for one in figures(everything, lost)],
        "variants": {
            variant: {name: estimate.as_dict() for name, estimate in found.items()}
            for variant, found in everything.items()
        },
        "content_loss": {name: estimate.as_dict() for name, estimate in lost.items()},
        "how": dict(how),
    }


def markdown(everything: Mapping[str, Mapping[str, Estimate]], titles: Mapping[str, str]) -> str:
    """A row per variant; the first column also says how many videos it is from."""
    lines = [
        "| | n | " + " | ".join(_HEADS.values()) + " |",
        "|---|---" + "|---" * len(_HEADS) + "|",
    ]
    for variant, found in everything.items():
        cells = [str(found[name]) for name in _HEADS]
        lines.append(f"| {titles[variant]} | {found['shape'].n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _figure(name: str, estimate: Estimate) -> Figure:
    return Figure(name, estimate.value, "share", estimate.n, (estimate.low, estimate.high))
