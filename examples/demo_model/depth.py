"""Does structure follow depth? Where the object of rendered clips is, with depth control and without, from the same noise.

python -m examples.demo_model.depth --model MODEL_WITH_DEPTH_ADAPTER --output outputs/demo_model/depth_evaluation

The clips asked for are held out; depth is the true depth of each. A segmenter that has seen true stills alone finds the
object in every rendered frame, and its mask is compared with the true one (IoU). Writes OUTPUT/metrics.json and
pictures.png (rows: true, with depth, without), and ends with one line of JSON per figure.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure
from examples.demo_model.conditions import EVALUATION_SEED, GATE_SEED
from examples.demo_model.gate_figures import load
from examples.demo_model.intervals import bootstrap
from examples.demo_model.judges import WEIGHTS
from examples.demo_model.segmenter import iou, load_or_train, own_iou, true_masks
from examples.demo_world.dataset import Look, Sample, clip, reference
from schemas.run import ExitCode
from stylecrafter import StyleCrafterPipeline
from stylecrafter.model_directory import read_fingerprint

# Shapes: N clips, T frames, H, W pixels, C = 3 colours; frames uint8, RGB.

_BATCH = 8
_SHOWN = 12


def depth_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """The gate's figures: IoU with depth and without, of neutral clips from text alone, and the lower end of the gain."""
    pipeline = _load(folder)
    samples = [clip(GATE_SEED, index, split="held-out", look="neutral") for index in range(count)]
    with_N, without_N = (
        _ious(one, samples, judges) for one in _both(pipeline, samples, "neutral", GATE_SEED)
    )
    gain_low, _ = bootstrap(with_N - without_N)
    return {
        "iou_of_true_clips": own_iou(load_or_train(judges), GATE_SEED, count, "neutral"),
        "iou": float(with_N.mean()),
        "iou_without_depth": float(without_N.mean()),
        "iou_gain_low": gain_low,
    }


def measure(options: argparse.Namespace) -> list[Figure]:
    """Renders, measures and writes everything."""
    look: Look = "styled" if options.styled else "neutral"
    pipeline = _load(options.model)
    samples = [clip(EVALUATION_SEED, index, split="held-out", look=look) for index in range(options.count)]
    rendered = _both(pipeline, samples, look, EVALUATION_SEED)
    with_N, without_N = (_ious(frames, samples, options.judges) for frames in rendered)
    figures = [
        _figure("depth_iou", with_N),
        _figure("depth_iou_without_depth", without_N),
        _figure("depth_iou_gain", with_N - without_N),
    ]
    ceiling = own_iou(load_or_train(options.judges), EVALUATION_SEED, options.count, look)
    options.output.mkdir(parents=True, exist_ok=True)
    metrics = {
        "figures": [json.loads(one.as_json_line()) for one in figures],
        "iou_of_true_clips": round(ceiling, 4),
        "how": {
            "command": f"python -m examples.demo_model.depth {' '.join(sys.argv[1:])}",
            "model": read_fingerprint(options.model),
            "look": look,
            "seed": EVALUATION_SEED,
            "intervals": "95 %, bootstrap over clips",
        },
    }
    (options.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    _picture([np.stack([one.frames_THWC for one in samples]), *rendered]).save(
        options.output / "pictures.png"
    )
    print(f"the segmenter itself, on the true clips: IoU {ceiling:.3f}")
    return figures


def _load(folder: Path) -> StyleCrafterPipeline:
    pipeline = load(folder)
    if pipeline.depth_adapter is None:
        raise ValueError(
            f"model is {str(folder)!r}; it must have a depth adapter (jobs.train_depth makes one)"
        )
    return pipeline


def _both(
    pipeline: StyleCrafterPipeline, samples: Sequence[Sample], look: Look, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frames [N, T, H, W, C] with depth and without, from the same noise."""
    with_depth, without = [], []
    for start in range(0, len(samples), _BATCH):
        numbers = range(start, min(start + _BATCH, len(samples)))
        part = [samples[index] for index in numbers]
        references = None
        if look == "styled":
            stills = [reference(seed, index, split="held-out", look=look) for index in numbers]
            references = [[Image.fromarray(one.frames_THWC[0])] for one in stills]
        for depth, found in (([one.depth_THW for one in part], with_depth), (None, without)):
            generators = [torch.Generator().manual_seed(seed + index) for index in numbers]
            prompts = [one.labels.caption for one in part]
            found.append(pipeline(prompts, references, generators=generators, depth=depth).frames)
        print(f"{numbers.stop} of {len(samples)} clips", flush=True)
    return np.concatenate(with_depth), np.concatenate(without)


def _ious(frames_NTHWC: np.ndarray, samples: Sequence[Sample], segmenter: Path) -> np.ndarray:
    found = load_or_train(segmenter).masks(frames_NTHWC)
    return np.array([iou(mask, true_masks(one)) for mask, one in zip(found, samples, strict=True)])


def _figure(name: str, values_N: np.ndarray) -> Figure:
    return Figure(name, float(values_N.mean()), "iou", len(values_N), bootstrap(values_N))


def _picture(rows: Sequence[np.ndarray]) -> Image.Image:
    """The middle frames of the first clips, a line for each kind."""
    middle = [np.concatenate(list(frames[:_SHOWN, frames.shape[1] // 2]), axis=1) for frames in rows]
    return Image.fromarray(np.concatenate(middle))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.depth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="model directory with a depth adapter")
    add("--output", type=Path, required=True, help="local folder")
    add("--count", type=int, default=100, help="clips (default: 100)")
    add(
        "--styled",
        action="store_true",
        help="styled clips with references (default: neutral ones, from text)",
    )
    add("--judges", type=Path, default=WEIGHTS, help=f"folder of the segmenter (default: {WEIGHTS})")
    add("--threads", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        for figure in measure(options):
            print(figure.as_json_line())
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
