"""The figures that gates look at, each measured in seconds to minutes on one core.

Each takes the folder of what the stage made, how many clips or pictures to look at, and the judges' folder.

Shapes: N clips or pictures, T frames, H, W pixels, C = 3 colours; frames uint8, RGB.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from examples.demo_model.conditions import CONTENT, GATE_SEED, STYLE, Condition, condition, judged_right
from examples.demo_model.judges import Judges
from examples.encoders.pictures import demo_pictures
from examples.encoders.train_autoencoder import psnr, to_signed
from stylecrafter import StyleCrafterPipeline
from stylecrafter.training import TrainingModel, TrainingOptions, draw

_BATCH = 8
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def autoencoder_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """PSNR in dB, and the share of styled pictures whose family the judges still see after coding."""
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    looks = {look: demo_pictures(count, GATE_SEED, look, "held-out") for look in ("neutral", "styled")}
    found = {f"psnr_{look}": float(psnr(vae, pictures).mean()) for look, pictures in looks.items()}
    conditions = [condition(GATE_SEED, i) for i in range(count)]
    frames_NTHWC = np.stack([_coded(vae, one.frames_THWC) for one in conditions])
    right = judged_right(Judges.load(judges), frames_NTHWC, conditions, ("family",))
    return found | {"family_after_reconstruction": float(right["family"].mean())}


def clip_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """What `train_clip` has found with its probes."""
    return {name: value for name, value in _json(folder / "clip.json").items() if isinstance(value, float)}


def judge_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """What `train_judges` has found on true clips of held-out combinations, and on such clips with changed motion."""
    found = _json(folder / "metrics.json")["figures"]
    changed = {f"motion_{name}": found["motion"][f"accuracy_{name}"] for name in ("backwards", "standing")}
    return {name: figure["accuracy"] for name, figure in found.items()} | changed


def base_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """Content of neutral clips rendered from text alone, and the worth of the motion word."""
    pipeline = load(folder)
    conditions = [condition(GATE_SEED, i, "neutral") for i in range(count)]
    found = {"motion_swap": motion_swap(pipeline, conditions)}
    return found | _accuracies(pipeline, judges, conditions, CONTENT, styled=False, mode="video")


def style_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """Content and style of pictures with a reference."""
    pipeline = load(folder)
    conditions = [condition(GATE_SEED, i) for i in range(count)]
    names = ("shape", "scene", "family", "palette")
    return _accuracies(pipeline, judges, conditions, names, styled=True, mode="image")


def temporal_figures(folder: Path, count: int, judges: Path) -> dict[str, float]:
    """Content and style of clips with a reference."""
    pipeline = load(folder)
    conditions = [condition(GATE_SEED, i) for i in range(count)]
    names = (*CONTENT, *STYLE)
    return _accuracies(pipeline, judges, conditions, names, styled=True, mode="video")


def load(folder: Path) -> StyleCrafterPipeline:
    """A model directory, to be measured."""
    pipeline = StyleCrafterPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def motion_swap(pipeline: StyleCrafterPipeline, conditions: Sequence[Condition]) -> float:
    """By how much the loss on true clips rises when the caption names the opposite motion.

    Half of the timesteps are from the noisiest quarter, where the text decides.
    """
    options = TrainingOptions(drop_text=0, drop_style=0, high_noise_share=0.5)
    model = TrainingModel(pipeline, "base", options).eval()
    rises = []
    for part in _parts(conditions):
        frames_NTHWC = torch.from_numpy(np.stack([one.frames_THWC for one in part]))
        shape_CTHW = model.latent_shape(*frames_NTHWC.shape[1:4])
        steps = pipeline.scheduler.config.num_train_timesteps
        draws = draw(GATE_SEED, "motion-swap", [one.index for one in part], shape_CTHW, options, steps)
        true_N, swapped_N = (
            model(frames_NTHWC, pipeline.tokenizer.prompt_ids(prompts), None, draws, plain=True)
            for prompts in ([one.prompt for one in part], [_swapped(one) for one in part])
        )
        rises.append(swapped_N - true_N)
    return float(torch.cat(rises).mean())


def render(
    pipeline: StyleCrafterPipeline, conditions: Sequence[Condition], *, styled: bool, mode: str
) -> np.ndarray:
    """Frames [N, T, H, W, C] with the model's own settings; each clip's noise is its number's."""
    found: list[np.ndarray] = []
    for part in _parts(conditions):
        references = [[Image.fromarray(one.reference_HWC)] for one in part] if styled else None
        generators = [torch.Generator().manual_seed(GATE_SEED + one.index) for one in part]
        prompts = [one.prompt for one in part]
        frames_BTHWC = pipeline(prompts, references, generators=generators, mode=mode).frames
        assert isinstance(frames_BTHWC, np.ndarray)
        found.append(frames_BTHWC)
    return np.concatenate(found)


def _accuracies(
    pipeline: StyleCrafterPipeline,
    judges: Path,
    conditions: Sequence[Condition],
    names: Sequence[str],
    *,
    styled: bool,
    mode: str,
) -> dict[str, float]:
    frames_NTHWC = render(pipeline, conditions, styled=styled, mode=mode)
    right = judged_right(Judges.load(judges), frames_NTHWC, conditions, names)
    return {name: float(right_N.mean()) for name, right_N in right.items()}


def _parts(conditions: Sequence[Condition]) -> list[Sequence[Condition]]:
    return [conditions[start : start + _BATCH] for start in range(0, len(conditions), _BATCH)]


def _swapped(one: Condition) -> str:
    motion = one.labels.motion
    swapped, count = re.subn(rf"\b{motion}\b", _OPPOSITE[motion], one.prompt)
    assert count == 1, one.prompt
    return swapped


@torch.no_grad()
def _coded(vae: AutoencoderKL, frames_THWC: np.ndarray) -> np.ndarray:
    """Frames as they come back from the autoencoder."""
    decoded = vae.decode(vae.encode(to_signed(frames_THWC)).latent_dist.mode()).sample.clamp(-1, 1)
    return ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ValueError(f"model is {str(path.parent)!r}; it must hold {path.name}")
    return json.loads(path.read_text())
