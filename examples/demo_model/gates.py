"""Whether what a stage made is good enough for the next one, so that no hour is spent on a bad start.

python -m examples.demo_model.gates base --model outputs/demo_model/base/model

Stages are autoencoder, clip, judges, base, style, temporal and depth. Exit code 0: passed; 1: not; what was missed is said.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from examples.demo_model.depth import depth_figures
from examples.demo_model.gate_figures import (
    autoencoder_figures,
    base_figures,
    clip_figures,
    judge_figures,
    style_figures,
    temporal_figures,
)
from examples.demo_model.judges import WEIGHTS

MEASURES: dict[str, Callable[[Path, int, Path], Mapping[str, float]]] = {
    "autoencoder": autoencoder_figures,
    "clip": clip_figures,
    "judges": judge_figures,
    "base": base_figures,
    "style": style_figures,
    "temporal": temporal_figures,
    "depth": depth_figures,
}

# What each figure must reach: what feasibility studies needed for the stage after it.
LEAST: dict[str, dict[str, float]] = {
    "autoencoder": {"psnr_neutral": 28, "psnr_styled": 28, "family_after_reconstruction": 0.9},
    "clip": {"probe_family": 0.8, "probe_palette": 0.8, "spread_motion_share": 0.5},
    "judges": dict.fromkeys(
        ("shape", "scene", "motion", "motion_backwards", "motion_standing", "family", "palette"), 0.95
    ),
    "base": {"motion_swap": 0.05, "shape": 0.8, "scene": 0.9, "motion": 0.8},
    "style": {"shape": 0.7, "scene": 0.9, "family": 0.5},
    "temporal": {"shape": 0.7, "motion": 0.5, "family": 0.5},
    "depth": {"iou_of_true_clips": 0.8, "iou_gain_low": 0.1},
}
DEFAULT_COUNT = 64


def problems(stage: str, figures: Mapping[str, float]) -> list[str]:
    """A sentence for every figure that the stage's gate refuses."""
    return [
        f"{stage}: {name} is {figures[name]:.3g}; at least {least:g} is needed"
        for name, least in LEAST[stage].items()
        if figures[name] < least
    ]


def passes(stage: str, folder: Path, count: int = DEFAULT_COUNT, judges: Path = WEIGHTS) -> bool:
    """Measures what the stage has left in `folder`, and says all of it.

    Raises:
        ValueError, OSError: the folder does not hold what the stage writes.
    """
    figures = MEASURES[stage](folder, count, judges)
    for name, value in figures.items():
        least = LEAST[stage].get(name)
        print(f"{name:28} {value:8.4f}" + ("" if least is None else f"   at least {least:g}"), flush=True)
    missed = problems(stage, figures)
    for sentence in missed:
        print(sentence, file=sys.stderr)
    print(f"gate of {stage}: {'not passed' if missed else 'passed'}", flush=True)
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.gates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=MEASURES)
    parser.add_argument("--model", type=Path, required=True, help="folder of what the stage made")
    parser.add_argument(
        "--count", type=int, default=DEFAULT_COUNT, help=f"clips or pictures (default: {DEFAULT_COUNT})"
    )
    parser.add_argument("--judges", type=Path, default=WEIGHTS, help=f"folder (default: {WEIGHTS})")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        return 0 if passes(options.stage, options.model, options.count, options.judges) else 1
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
