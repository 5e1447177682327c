"""What faster rendering costs in quality: the same held-out rows of the demo world under a list of configurations.

python -m benchmarks.quality_speed --model MODEL_DIR --output outputs/quality_speed
python -m benchmarks.quality_speed --model MODEL_DIR --output outputs/quality_speed --configurations quality fast

One process, as many threads for each. The presets render `--count` rows, everything else the first `--others` of
these. The same command goes on after an interruption. Ends with the table (also OUTPUT/table.md) and one line of JSON per figure.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from actors.assets import RowAssets, StyleImage
from actors.renderer import RenderedVideo, Renderer
from actors.storage import Storage
from benchmarks.quality_speed_table import Measured, figures, markdown
from examples.demo_model.conditions import EVALUATION_SEED, Condition, condition
from examples.demo_model.evaluate import EVALUATION_CLIP
from examples.demo_model.judges import WEIGHTS, Judges
from examples.demo_model.scoring import scores
from examples.encoders.components import Clip, load_clip
from pipeline.model_info import read_model_info
from schemas.identity import row_seed
from schemas.planned import PlannedRow
from schemas.presets import PRESETS
from schemas.run import ExitCode, FetchLimits, UsageError
from schemas.settings import RenderSettings, resolve_settings
from schemas.speed import SpeedSettings

_SHOWN = 16  # middle frames of the first videos, side by side in NAME.png


@dataclass(frozen=True)
class Configuration:
    """Settings and options for speed that differ from the model directory's own."""

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)


def _steps(scheduler: str, steps: int, **more: Any) -> Configuration:
    title = ", ".join([f"{scheduler}, {steps} steps", *(f"{name} {value}" for name, value in more.items())])
    return Configuration(title, {"scheduler": scheduler, "num_inference_steps": steps, **more})


CONFIGURATIONS = {
    "quality": Configuration("preset `quality`: the model's own settings", *map(dict, PRESETS["quality"])),
    "fast": Configuration("preset `fast`", *map(dict, PRESETS["fast"])),
    "ddim_50": _steps("ddim", 50),
    "ddim_10": _steps("ddim", 10),
    "dpm_20": _steps("dpm++", 20),
    "dpm_10": _steps("dpm++", 10),
    "unipc_10": _steps("unipc", 10),
    "unipc_8": _steps("unipc", 8),
    "unipc_6": _steps("unipc", 6),
    "euler_20": _steps("euler", 20),
    "euler_10": _steps("euler", 10),
    "lcm_8": _steps("lcm", 8),  # these weights were not distilled for it
    "interval_75": Configuration("guidance in the first 75 % of the steps", {"guidance_end": 0.75}),
    "interval_50": Configuration("guidance in the first 50 % of the steps", {"guidance_end": 0.5}),
    "unipc_10_interval_50": _steps("unipc", 10, guidance_end=0.5),
    "broadcast": Configuration("attention broadcast 2 4 6", speed={"attention_broadcast": (2, 4, 6)}),
    "vae_slicing": Configuration("VAE slicing", speed={"vae_slicing": True}),
    "vae_tiling": Configuration("VAE tiling", speed={"vae_tiling": True}),
    "channels_last": Configuration("channels last", speed={"channels_last": True}),
    "fp8_weights": Configuration("8-bit weights", speed={"fp8_weights": True}),
}


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        measure(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return ExitCode.USAGE
    return ExitCode.DONE


def measure(options: argparse.Namespace) -> None:
    """Renders what is missing, and writes the table of all."""
    wanted = [_wanted(name, options) for name in options.configurations]
    conditions = [condition(EVALUATION_SEED, index) for index in range(max(one.count for one in wanted))]
    _render_missing(wanted, conditions, options)
    judges, clip = Judges.load(options.judges), load_clip(options.evaluation_clip)
    found = {one.name: _measured(one, conditions, judges, clip, options.batch_size) for one in wanted}
    table = markdown(found, {name: CONFIGURATIONS[name].title for name in found})
    (options.output / "table.md").write_text(table)
    print(table)
    for figure in figures(found):
        print(figure.as_json_line())


@dataclass(frozen=True)
class _Wanted:
    """One configuration of this run and the folder of its batches."""

    name: str
    count: int
    settings: RenderSettings
    speed: SpeedSettings
    folder: Path

    def batch(self, start: int) -> Path:
        return self.folder / f"{start:04d}.npz"


def _wanted(name: str, options: argparse.Namespace) -> _Wanted:
    """The configuration on this model.

    Raises:
        ValueError: the folder holds batches of another model, or made otherwise.
    """
    model = read_model_info(Storage(FetchLimits()), str(options.model))
    one = CONFIGURATIONS[name]
    settings = resolve_settings(one.settings, model.defaults_for("video"))
    asked = {
        "model": model.fingerprint,
        "settings": settings.model_dump(),
        "speed": one.speed,
        "batch_size": options.batch_size,
        "threads": options.threads,
    }
    folder: Path = options.output / name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asked, indent=1)
    path = folder / "asked.json"
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{folder} was rendered otherwise; give the same arguments, or another --output")
    path.write_text(text)
    count = options.count if name in PRESETS else options.others
    return _Wanted(name, count, settings, SpeedSettings(**one.speed), folder)


def _render_missing(
    wanted: Sequence[_Wanted], conditions: Sequence[Condition], options: argparse.Namespace
) -> None:
    """Batch after batch, each under every configuration in turn: what else the machine does then slows all alike."""
    renderers: dict[str, Renderer] = {}
    for start in range(0, len(conditions), options.batch_size):
        for one in wanted:
            part = conditions[start : min(start + options.batch_size, one.count)]
            if not part or one.batch(start).exists():
                continue
            if one.name not in renderers:
                renderer = Renderer(options.model, dtype="float32", device="cpu", speed=one.speed)
                # What only the first batch pays.
                _render(renderer, part, one.settings.model_copy(update={"num_inference_steps": 2}))
                renderers[one.name] = renderer
            _render_batch(renderers[one.name], part, one, start)
        print(f"{min(start + options.batch_size, len(conditions))} rows", flush=True)


def _render_batch(renderer: Renderer, part: Sequence[Condition], one: _Wanted, start: int) -> None:
    started, started_cpu = time.perf_counter(), time.process_time()
    frames_NTHWC = _render(renderer, part, one.settings)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    unfinished = one.folder / "unfinished.npz"
    np.savez(unfinished, frames=frames_NTHWC, wall_s=wall_s / len(part), cpu_s=cpu_s / len(part))
    unfinished.rename(one.batch(start))


def _measured(
    one: _Wanted, conditions: Sequence[Condition], judges: Judges, clip: Clip, batch_size: int
) -> Measured:
    frames, wall_s, cpu_s = [], [], []
    for start in range(0, one.count, batch_size):
        with np.load(one.batch(start)) as kept:
            frames.append(kept["frames"])
            wall_s.append(float(kept["wall_s"]))
            cpu_s.append(float(kept["cpu_s"]))
    frames_NTHWC = np.concatenate(frames)
    middle_NHWC = frames_NTHWC[:_SHOWN, frames_NTHWC.shape[1] // 2]
    Image.fromarray(np.concatenate(list(middle_NHWC), axis=1)).save(one.folder.with_suffix(".png"))
    return Measured(wall_s, cpu_s, scores(frames_NTHWC, conditions[: one.count], judges, clip))


def _render(renderer: Renderer, conditions: Sequence[Condition], settings: RenderSettings) -> np.ndarray:
    """Frames [N, T, H, W, C] as a run renders them, of one batch; noise is the row's, whatever the settings."""
    rows = [_row(one, settings) for one in conditions]
    assets = [RowAssets([StyleImage(one.reference_HWC, f"{one.index}")]) for one in conditions]
    videos = renderer.render(rows, assets)
    return np.stack(list(_frames(videos)))


def _frames(videos: Sequence[Any]) -> Iterator[np.ndarray]:
    for video in videos:
        if not isinstance(video, RenderedVideo):
            raise UsageError(f"a video could not be rendered: {video}")
        yield video.frames_THWC


def _row(one: Condition, settings: RenderSettings) -> PlannedRow:
    seed = row_seed(
        run_seed=0,
        prompt=one.prompt,
        style_image_uri=[],
        depth_video_uri=None,
        sample_index=0,
        manifest_seed=one.index,
    )
    name = f"{one.index:04d}"
    return PlannedRow(
        row_id=name,
        sample_index=0,
        row_key=name,
        prompt=one.prompt,
        style_images=[],
        seed=seed,
        settings=settings,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="model directory")
    add("--output", type=Path, required=True, help="local folder")
    add("--count", type=int, default=400, help="videos of each preset (default: 400)")
    add("--others", type=int, default=64, help="videos of each other configuration (default: 64)")
    add(
        "--configurations",
        nargs="+",
        choices=CONFIGURATIONS,
        default=list(CONFIGURATIONS),
        metavar="NAME",
        help=f"of {', '.join(CONFIGURATIONS)} (default: all)",
    )
    add("--batch-size", type=int, default=8, help="videos denoised together (default: 8)")
    add("--threads", type=int, default=1, help="default: 1")
    add("--judges", type=Path, default=WEIGHTS, help=f"folder (default: {WEIGHTS})")
    add("--evaluation-clip", type=Path, default=EVALUATION_CLIP, help=f"default: {EVALUATION_CLIP}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
