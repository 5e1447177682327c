"""Trains the judges on true clips of the demo world and measures them on combinations held out from it.

python -m examples.demo_model.train_judges --output examples/demo_model/weights/judges --work outputs/judges

Writes one safetensors file per network and metrics.json.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from examples.demo_model.intervals import wilson
from examples.demo_model.judges import (
    NETWORKS,
    NO_MOTION,
    VALUES,
    Judges,
    Network,
    motion_frames,
    motion_input,
    new_network,
    to_pixels,
)
from examples.demo_world.dataset import Look, clip
from examples.demo_world.world import Split
from examples.encoders.loop import Loop, train
from schemas.run import ExitCode

# Shapes: N clips or pictures, T frames, H, W pixels, C channels.

DATA_SEED = 4001  # of nothing else: encoders and model never see these clips
FRAMES = 8
STEPS = {"drawing": 2500, "palette": 1000, "motion": 1200}
UNKNOWN = -1  # neutral clips have no palette class
_OPPOSITE = np.array([VALUES["motion"].index(name) for name in ("right", "left", "down", "up")])
_STANDING = VALUES["motion"].index(NO_MOTION)
_NEUTRAL_EVERY = 4

Clips = tuple[np.ndarray, dict[str, np.ndarray]]
"""Frames uint8 NTHWC and labels int [N], numbers into VALUES."""


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        loops = {name: _loop(options, name) for name in NETWORKS}
        clips = demo_clips(options.pool, "train")
        networks = {name: train_network(name, clips, loop, options.batch) for name, loop in loops.items()}
        Judges(networks).save(options.output)
        figures = measure(Judges.load(options.output), demo_clips(options.tested, "held-out"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    except OSError as error:
        print(error, file=sys.stderr)
        return ExitCode.INFRASTRUCTURE
    facts = {
        "command": f"python -m examples.demo_model.train_judges {' '.join(sys.argv[1:])}",
        "data_seed": DATA_SEED,
        "trained_on": f"{options.pool} clips of split train",
        "tested_on": f"{options.tested} clips of split held-out: combinations that training has not",
        "figures": figures,
    }
    (options.output / "metrics.json").write_text(json.dumps(facts, indent=2) + "\n")
    for name, figure in figures.items():
        print(name, figure)
    return ExitCode.DONE


def demo_clips(count: int, split: Split, size: int = 64) -> Clips:
    """The first clips of the judges' own seed, three styled ones and a neutral one in turn."""
    frames_NTHWC = np.empty((count, FRAMES, size, size, 3), np.uint8)
    labels = {name: np.full(count, UNKNOWN) for name in VALUES}
    numbers: dict[Look, Iterator[int]] = {"styled": itertools.count(), "neutral": itertools.count()}
    for i in range(count):
        look: Look = "neutral" if i % _NEUTRAL_EVERY == 0 else "styled"
        # Numbered apart: a style's family goes with its number, and one number in four would drop two families.
        sample = clip(
            DATA_SEED, next(numbers[look]), split=split, look=look, size=size, frames=FRAMES, styles=count
        )
        frames_NTHWC[i] = sample.frames_THWC
        for name, values in VALUES.items():
            value = getattr(sample.labels, name)
            if value in values:
                labels[name][i] = values.index(value)
    return frames_NTHWC, labels


def train_network(name: str, clips: Clips, loop: Loop, batch: int) -> Network:
    """One network, trained on clips that are worsened at random as generated ones are."""
    frames_NTHWC, labels = clips
    torch.manual_seed(loop.seed)
    network = new_network(name).to(memory_format=torch.channels_last)

    def loss_of(step: int) -> tuple[torch.Tensor, Mapping[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        chosen = rng.integers(len(frames_NTHWC), size=batch)
        seen_NTHWC = _view(name, frames_NTHWC[chosen], rng)
        wanted = {label: labels[label][chosen] for label in NETWORKS[name]}
        if name == "motion":
            seen_NTHWC, wanted["motion"] = told_by_change(seen_NTHWC, wanted["motion"], rng)
        pixels_NTCHW = to_pixels(seen_NTHWC)
        pixels_NTCHW = worsened(pixels_NTCHW, rng)
        pixels_NCHW = motion_input(pixels_NTCHW) if name == "motion" else pixels_NTCHW[:, 0]
        logits = network(pixels_NCHW.contiguous(memory_format=torch.channels_last))
        losses = [
            F.cross_entropy(logits[label], torch.from_numpy(wanted[label]), ignore_index=UNKNOWN)
            for label in logits
        ]
        return torch.stack(losses).sum(), {}

    train(network, loss_of, loop)
    return network


def _view(name: str, frames_NTHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frames that a network sees of each clip; colours swapped unless they are what is asked for."""
    count, frames = frames_NTHWC.shape[:2]
    if name == "motion":
        seen = frames_NTHWC[:, motion_frames(frames)]
    else:
        seen = frames_NTHWC[np.arange(count), rng.integers(frames, size=count)][:, None]
    return seen if name == "palette" else seen[..., rng.permutation(3)]


def told_by_change(
    frames_NTHWC: np.ndarray, motions_N: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A third of the clips backwards, which then move the other way, and a sixth standing still at any frame.

    Objects of true clips start in the middle, so that any later frame gives their motion away: a judge of those
    alone learns places, and takes an object that stands at the left for one that moves there.
    """
    count, frames = frames_NTHWC.shape[:2]
    part_N = rng.random(count)
    backwards_N, standing_N = part_N < 1 / 3, part_N >= 5 / 6
    order_NT = np.where(backwards_N[:, None], np.arange(frames)[::-1], np.arange(frames))
    order_NT = np.where(standing_N[:, None], rng.integers(frames, size=count)[:, None], order_NT)
    motions_N = np.where(backwards_N, _OPPOSITE[motions_N], motions_N)
    return frames_NTHWC[np.arange(count)[:, None], order_NT], np.where(standing_N, _STANDING, motions_N)


def worsened(pixels_NTCHW: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Half of the calls: softer, coarser, noisier, of another contrast, a little. The whole batch alike."""
    if rng.random() < 0.5:
        return pixels_NTCHW
    flat = pixels_NTCHW.flatten(0, 1)
    if rng.random() < 0.6:
        flat = _blurred(flat, sigma=rng.uniform(0.3, 1.1))
    if rng.random() < 0.4:
        side = flat.shape[-1]
        small = F.interpolate(flat, round(side / rng.uniform(1.2, 1.8)), mode="bilinear", antialias=True)
        flat = F.interpolate(small, side, mode="bicubic")
    if rng.random() < 0.6:
        coarse = torch.randn(len(flat), 3, 8, 8) * rng.uniform(0, 0.04)
        flat = flat + F.interpolate(coarse, flat.shape[-1], mode="bilinear")  # as of an error in a latent
        flat = flat + torch.randn_like(flat) * rng.uniform(0, 0.06)
    if rng.random() < 0.5:
        middle = flat.mean(dim=(1, 2, 3), keepdim=True)
        flat = middle + (flat - middle) * rng.uniform(0.8, 1.25) + rng.uniform(-0.05, 0.05)
    return flat.clamp(0, 1).unflatten(0, pixels_NTCHW.shape[:2])


def _blurred(pixels_NCHW: torch.Tensor, sigma: float) -> torch.Tensor:
    offset = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.softmax(-(offset**2) / (2 * sigma**2), dim=0)
    padded = F.pad(pixels_NCHW, (3, 3, 3, 3), mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)
    return F.conv2d(rows, kernel.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)


def measure(judges: Judges, clips: Clips) -> dict[str, dict[str, float]]:
    """Per label: n, accuracy, the 95 % Wilson interval, and the accuracy on worsened clips.

    Of motion also that on clips played backwards, and on ones that stand still at their last frame.
    """
    frames_NTHWC, labels = clips
    torch.manual_seed(0)
    worse_NTCHW = _worse(frames_NTHWC)
    plain, worse = judges.probabilities(frames_NTHWC), judges.probabilities(worse_NTCHW)
    found = {}
    for name, numbers_N in labels.items():
        known = numbers_N != UNKNOWN
        right = plain[name].argmax(1).numpy()[known] == numbers_N[known]
        right_worse = worse[name].argmax(1).numpy()[known] == numbers_N[known]
        low, high = wilson(int(right.sum()), len(right))
        found[name] = {
            "n": len(right),
            "accuracy": round(float(right.mean()), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "accuracy_worsened": round(float(right_worse.mean()), 4),
        }
    for name, changed_NTHWC, wanted_N in (
        ("accuracy_backwards", frames_NTHWC[:, ::-1], _OPPOSITE[labels["motion"]]),
        (
            "accuracy_standing",
            frames_NTHWC[:, [-1] * frames_NTHWC.shape[1]],
            np.full(len(frames_NTHWC), _STANDING),
        ),
    ):
        seen_N = judges.probabilities(changed_NTHWC)["motion"].argmax(1).numpy()
        found["motion"][name] = round(float((seen_N == wanted_N).mean()), 4)
    return found


def _worse(frames_NTHWC: np.ndarray) -> np.ndarray:
    """Softened by a sigma of 0.8 pixels, with noise of 4 % of the range."""
    found = []
    for clip_THWC in frames_NTHWC:
        pixels_TCHW = _blurred(to_pixels(clip_THWC[None])[0], sigma=0.8)
        pixels_TCHW = (pixels_TCHW + torch.randn_like(pixels_TCHW) * 0.04).clamp(0, 1)
        found.append((pixels_TCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.stack(found)


def _loop(options: argparse.Namespace, name: str) -> Loop:
    return Loop(
        work=options.work / name,
        steps=STEPS[name] if options.steps is None else options.steps,
        learning_rate=options.learning_rate,
        weight_decay=0.02,
        seed=DATA_SEED,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.train_judges",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the networks and metrics.json")
    add("--work", type=Path, required=True, help="folder of the states, to go on from")
    add("--pool", type=int, default=12_000, help="clips to train on (default: 12000)")
    add("--tested", type=int, default=800, help="clips to test on (default: 800)")
    add("--steps", type=int, help=f"of each network (default: {STEPS})")
    add("--batch", type=int, default=64, help="default: 64")
    add("--learning-rate", type=float, default=3e-3, help="default: 0.003")
    add("--threads", type=int, default=1, help="default: 1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
