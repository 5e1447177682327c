"""Are there seams in videos longer than those of the training? CLIP-Temp where windows begin, and elsewhere.

python -m examples.demo_model.long_video --model MODEL_DIR --output outputs/demo_model/long_video --frames 32

Every clip is rendered with windows of the model's own length, and without any. The cosine of the CLIP embeddings of two
neighbouring frames is averaged over the pairs on a border (where frame k * window follows the frame before it, and the
noise begins to repeat) and over all other pairs. Writes OUTPUT/metrics.json and strips of the first clips, and ends with
one line of JSON per figure: a seam would make `long_video_seam` (others less borders) positive.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.figures import Figure
from examples.demo_model.conditions import EVALUATION_SEED, Condition, condition
from examples.demo_model.evaluate import EVALUATION_CLIP
from examples.demo_model.gate_figures import load
from examples.demo_model.intervals import bootstrap
from examples.encoders.components import Clip, load_clip
from schemas.run import ExitCode
from stylecrafter import StyleCrafterPipeline
from stylecrafter.metrics import clip_image_embeddings
from stylecrafter.model_directory import read_fingerprint

# Shapes: T frames, H, W pixels, C = 3 colours, P width of the joint CLIP space; frames uint8, RGB.

_SHOWN = 6


def neighbours(frames_THWC: np.ndarray, clip: Clip) -> np.ndarray:
    """Cosine of every frame and the next one [T - 1]."""
    embeddings_TP = clip_image_embeddings(clip.image_encoder, clip.feature_extractor, frames_THWC)
    return (embeddings_TP[1:] * embeddings_TP[:-1]).sum(dim=1).numpy()


def seam(cosines_T: np.ndarray, window: int) -> float:
    """By how much pairs on a border are less alike than the others."""
    on_border_T = (np.arange(len(cosines_T)) + 1) % window == 0
    return float(cosines_T[~on_border_T].mean() - cosines_T[on_border_T].mean())


def measure(options: argparse.Namespace) -> list[Figure]:
    """Renders, measures and writes everything."""
    pipeline, clip = load(options.model), load_clip(options.evaluation_clip)
    window = pipeline.generation_config["num_frames"]
    if options.frames <= window:
        raise ValueError(f"frames = {options.frames}: must be more than the model's own {window}")
    strips, seams, cosines = [], {"windows": [], "no_windows": []}, {"windows": [], "no_windows": []}
    for index in range(options.count):
        asked = condition(EVALUATION_SEED, index)
        for name, frame_window in (("windows", window), ("no_windows", None)):
            frames_THWC = _render(pipeline, asked, options.frames, frame_window)
            between_T = neighbours(frames_THWC, clip)
            seams[name].append(seam(between_T, window))
            cosines[name].append(float(between_T.mean()))
            if index < _SHOWN:
                strips.append(np.concatenate(list(frames_THWC), axis=1))
        print(f"{index + 1} of {options.count} clips", flush=True)
    figures = [
        _figure("long_video_seam", seams["windows"]),
        _figure("long_video_clip_temp", cosines["windows"]),
        _figure("long_video_clip_temp_without_windows", cosines["no_windows"]),
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    how = {
        "command": f"python -m examples.demo_model.long_video {' '.join(sys.argv[1:])}",
        "model": read_fingerprint(options.model),
        "frames": options.frames,
        "window": window,
        "intervals": "95 %, bootstrap over clips",
    }
    metrics = {"figures": [json.loads(one.as_json_line()) for one in figures], "how": how}
    (options.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    Image.fromarray(np.concatenate(strips)).save(options.output / "strips.png")
    return figures


def _render(
    pipeline: StyleCrafterPipeline, asked: Condition, frames: int, frame_window: int | None
) -> np.ndarray:
    generators = [torch.Generator().manual_seed(EVALUATION_SEED + asked.index)]
    return pipeline(
        asked.prompt,
        [Image.fromarray(asked.reference_HWC)],
        generators=generators,
        num_frames=frames,
        frame_window=frame_window,
    ).frames[0]


def _figure(name: str, values: list[float]) -> Figure:
    return Figure(name, float(np.mean(values)), "cosine", len(values), bootstrap(values))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.long_video",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="model directory")
    add("--output", type=Path, required=True, help="local folder")
    add("--frames", type=int, default=32, help="of each video (default: 32)")
    add("--count", type=int, default=24, help="clips (default: 24)")
    add("--evaluation-clip", type=Path, default=EVALUATION_CLIP, help=f"default: {EVALUATION_CLIP}")
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
