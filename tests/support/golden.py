"""The golden folders that hold only a UNet and adapters, completed with the other components of the first one."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from stylecrafter import StyleCrafterPipeline
from stylecrafter.convert import convert

DATA = Path(__file__).parents[1] / "data"
TINY, TINY_VC2, TINY_DEPTH = (DATA / f"golden_{name}" for name in ("tiny", "tiny_vc2", "tiny_depth"))
_OTHER_COMPONENTS = ("first_stage_model.", "cond_stage_model.")


def complete_files(source: Path, folder: Path) -> dict[str, Path]:
    """`convert`'s arguments for a golden folder: VAE and text tower are the tiny model's.

    The vision tower is the tiny one's form in the width that the adapter expects, with random weights.
    """
    checkpoint, adapter = (
        torch.load(source / name, weights_only=True) for name in ("model.ckpt", "adapter_v1.pth")
    )
    tiny = torch.load(TINY / "model.ckpt", weights_only=True)["state_dict"]
    checkpoint["state_dict"] |= {key: x for key, x in tiny.items() if key.startswith(_OTHER_COMPONENTS)}
    torch.save(checkpoint, folder / "model.ckpt")
    open_clip = torch.load(TINY / "open_clip_pytorch_model.bin", weights_only=True)
    width = adapter["image_context_model.proj"].shape[0]
    torch.save(_with_vision_width(open_clip, width), folder / "open_clip.bin")
    return {
        "checkpoint": folder / "model.ckpt",
        "adapter": source / "adapter_v1.pth",
        "temporal": None,
        "open_clip": folder / "open_clip.bin",
        "architecture": next(
            source / name
            for name in ("config_style_video.json", "config_video.json")
            if (source / name).exists()
        ),
    }


def convert_golden(source: Path, folder: Path, **options: object) -> StyleCrafterPipeline:
    """The pipeline of a golden folder, converted, saved and loaded again."""
    folder.mkdir(exist_ok=True)
    return StyleCrafterPipeline.from_pretrained(
        convert(**complete_files(source, folder), output=folder / "model", **options).output
    )


def golden_numbers(source: Path) -> dict[str, torch.Tensor]:
    return load_file(source / "golden.safetensors")


def _with_vision_width(tensors: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    tiny = tensors["visual.conv1.weight"].shape[0]
    generator = torch.Generator().manual_seed(0)
    resized = {}
    for key, value in tensors.items():
        factors = [size * width // tiny if size % tiny == 0 else size for size in value.shape]
        if key == "visual.proj":
            factors = [width, value.shape[1]]
        elif key == "visual.conv1.weight":
            factors = [width, *value.shape[1:]]
        resized[key] = 0.1 * torch.randn(factors, generator=generator) if key.startswith("visual.") else value
    return resized
