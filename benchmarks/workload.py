"""What the efficiency benchmark renders: a model of the real architecture, pictures and manifests, all from seeds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from examples.untrained_model import build_untrained_pipeline
from schemas.manifest import manifest_schema
from stylecrafter.sampling import published_timesteps

# Twice the demo's width and fewer pixels: denoising then has nearly the share of the work that it has in the
# published model (98 %), and a step is short enough to choose a video's length by their number.
_CHANNELS = (64, 128, 256, 256)
_SHAPE = {"num_frames": 8, "height": 64, "width": 128}
_PICTURE_SIDE = 512
_MAX_STEPS = 1000
_SUBJECTS = ("wolf", "lighthouse", "campfire", "bridge", "knight", "sailing boat", "windmill", "tram")
_PLACES = ("in a forest", "on a rocky coast", "under a starry sky", "in the rain", "at dawn")


def write_model(directory: Path) -> None:
    """The benchmark's model directory: untrained, which costs what trained weights cost."""
    pipeline = build_untrained_pipeline(seed=0, channels=_CHANNELS)
    pipeline.generation_config |= _SHAPE
    pipeline.save_pretrained(directory)


def write_styles(folder: Path, count: int) -> list[Path]:
    """`count` style pictures that differ, drawn from waves of colour."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:02d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.is_file():
            Image.fromarray(_picture(index)).save(path)
    return paths


def _picture(seed: int) -> np.ndarray:
    """An uint8 HWC picture of interfering waves."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:_PICTURE_SIDE, 0:_PICTURE_SIDE] / _PICTURE_SIDE
    planes = []
    for _ in range(3):
        down, across, phase = random.uniform((2, 2, 0), (20, 20, 2 * np.pi))
        planes.append(np.sin(2 * np.pi * (down * y + across * x**2) + phase))
    return ((np.stack(planes, axis=-1) + 1) * 127.5).astype(np.uint8)


def write_manifest(path: Path, styles: list[Path], num_inference_steps: int) -> None:
    """One row per style, each with its own prompt, so that no cached embedding helps."""
    rows = [
        {
            "row_id": f"row-{index:03d}",
            "prompt": f"A {_SUBJECTS[index % len(_SUBJECTS)]} {_PLACES[index % len(_PLACES)]}, number {index}",
            "style_image_uri": [str(style)],
            "num_inference_steps": num_inference_steps,
        }
        for index, style in enumerate(styles)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=manifest_schema(list(rows[0]))), path)


def steps_for(seconds: float, *, step_s: float, fixed_s: float) -> int:
    """The smallest `num_inference_steps` whose video takes at least `seconds`.

    Args:
        step_s: seconds of one denoising step; S steps asked for may be more, as in the published sampler.
        fixed_s: seconds of a video apart from its denoising.

    Raises:
        ValueError: not even the largest number of steps takes so long.
    """
    for steps in range(1, _MAX_STEPS + 1):
        if fixed_s + len(published_timesteps(steps)) * step_s >= seconds:
            return steps
    raise ValueError(
        f"seconds = {seconds:g}: {_MAX_STEPS} steps of {step_s:g} s take less; use a larger model or video"
    )
