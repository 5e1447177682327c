"""Published parts of AnimateDiff and IP-Adapter to one model directory (see `animatediff`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from stylecrafter.animatediff import (
    GENERATION,
    IP_ADAPTER_FILE,
    IP_ADAPTER_FOLDER,
    AnimateDiffIPAdapterPipeline,
)
from stylecrafter.checkpoint_files import ConversionError, read_weights
from stylecrafter.model_directory import write_model_files
from stylecrafter.style_encoder import StyleImageProcessor

_GROUPS = ("image_proj.", "ip_adapter.")


def assemble(
    *,
    base: Path,
    motion_adapter: Path,
    ip_adapter: Path,
    image_encoder: Path,
    output: Path,
    dtype: torch.dtype = torch.float32,
    trained: bool = True,
) -> None:
    """Writes the model directory; nothing is fetched from the network, and no pickle is run.

    Args:
        base: directory of a Stable Diffusion 1.x pipeline in diffusers layout.
        motion_adapter: directory of a diffusers `MotionAdapter`.
        ip_adapter: weights of an IP-Adapter for the base, .safetensors or .bin.
        image_encoder: directory of the CLIP vision tower that the adapter was trained with.
        output: must not exist, or be empty.
        dtype: of the written weights.

    Raises:
        ConversionError: a part is missing, or does not fit the others.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConversionError(f"output = {str(output)!r} is there already; remove it or choose another")
    adapter = _ip_adapter(ip_adapter, dtype)
    vision = _load("image_encoder", image_encoder, CLIPVisionModelWithProjection.from_pretrained)
    components: dict[str, Any] = {
        "vae": _load("base/vae", base / "vae", AutoencoderKL.from_pretrained),
        "text_encoder": _load("base/text_encoder", base / "text_encoder", CLIPTextModel.from_pretrained),
        "tokenizer": _load("base/tokenizer", base / "tokenizer", CLIPTokenizer.from_pretrained),
        "unet": _motion_unet(base / "unet", motion_adapter),
        "image_encoder": vision,
    }
    _check_fit(adapter, components["unet"], vision)
    components["feature_extractor"] = StyleImageProcessor(size=vision.config.image_size)
    components["scheduler"] = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",  # the motion layers were trained on it
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="linspace",
    )
    for name in ("vae", "text_encoder", "unet", "image_encoder"):
        components[name] = components[name].to(dtype)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, component in components.items():
        component.save_pretrained(partial / name)
    AnimateDiffIPAdapterPipeline(**components).save_config(partial)
    (partial / IP_ADAPTER_FOLDER).mkdir()
    save_file(adapter, partial / IP_ADAPTER_FOLDER / IP_ADAPTER_FILE)
    write_model_files(partial, GENERATION | {"trained": trained})
    if output.exists():
        output.rmdir()
    partial.rename(output)


def _load(name: str, path: Path, load: Callable[..., Any]) -> Any:
    if not path.is_dir():
        raise ConversionError(f"{name}: {path} is no directory")
    try:
        return load(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{name}: {path} cannot be loaded: {error}") from error


def _motion_unet(unet: Path, motion_adapter: Path) -> UNetMotionModel:
    plain = _load("base/unet", unet, UNet2DConditionModel.from_pretrained)
    motion = _load("motion_adapter", motion_adapter, MotionAdapter.from_pretrained)
    try:
        return UNetMotionModel.from_unet2d(plain, motion)
    except (RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise ConversionError(
            f"motion_adapter {motion_adapter} does not fit the base's UNet: {error}"
        ) from error


def _ip_adapter(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    weights = read_weights(path)
    if not all(any(name.startswith(group) for name in weights) for group in _GROUPS):
        raise ConversionError(
            f"ip_adapter: {path} lacks tensors named {' and '.join(f'{g}*' for g in _GROUPS)}"
        )
    return {
        name: tensor.to(dtype).contiguous() for name, tensor in weights.items() if name.startswith(_GROUPS)
    }


def _check_fit(
    adapter: dict[str, torch.Tensor], unet: UNetMotionModel, vision: CLIPVisionModelWithProjection
) -> None:
    """The adapter's layers count and measure what the base and the vision tower have."""
    spatial = [
        name
        for name in unet.attn_processors
        if name.endswith("attn2.processor") and "motion_modules" not in name
    ]
    layers = [name for name in adapter if name.endswith("to_k_ip.weight")]
    if len(layers) != len(spatial):
        raise ConversionError(
            f"ip_adapter has {len(layers)} attention layers; the base's UNet has {len(spatial)}"
        )
    channels = adapter[layers[0]].shape[1]
    if channels != unet.config.cross_attention_dim:
        raise ConversionError(
            f"ip_adapter has tokens of {channels} channels; the base's text has {unet.config.cross_attention_dim}"
        )
    projection = adapter.get("image_proj.proj.weight")
    if projection is not None and projection.shape[1] != vision.config.projection_dim:
        raise ConversionError(
            f"ip_adapter reads embeddings of {projection.shape[1]} channels; the image encoder makes "
            f"{vision.config.projection_dim}"
        )
