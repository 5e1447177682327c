"""The components of a model directory, empty, each with the published tensors that will fill it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, T2IAdapter
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from stylecrafter import architecture, depth, key_maps
from stylecrafter.checkpoint_files import ConversionError, Located, PublishedFiles
from stylecrafter.key_maps import KeyMap
from stylecrafter.published_params import PublishedParams
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import StyleCrafterUNet
from stylecrafter.unet_layout import depth_feature_places

UNET, VAE, TEXT, VISION = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model.", "visual."
# What the files hold and inference does not use: losses, the mask OpenCLIP keeps, CLIP's temperature,
# and the style processors, which the official model shows a second time inside the UNet.
_UNUSED = ("loss.", "attn_mask", "logit_scale", ".attn2.processor.")
_NEW_ADAPTER_SEED = 0  # one for all: converting twice gives one fingerprint
MAX_SHARD = "2GB"


@dataclass
class Part:
    """One component on its way: an empty model, the map of its keys, and the tensors on offer."""

    name: str
    model: Any
    key_map: KeyMap
    tensors: Mapping[str, Located]
    prefix: str
    files: tuple[Path, ...]

    def problems(self) -> list[str]:
        """Missing and misshapen keys, and keys that this architecture has no place for."""
        found = []
        for ours, parameter in self.model.state_dict().items():
            source = self.key_map[ours]
            expected = source.published_shape(parameter.shape)
            located = self.tensors.get(source.key)
            if located is None:
                files = " and ".join(str(file) for file in self.files)
                found.append(
                    f"{self.name}: key {self.prefix}{source.key} is missing in {files}; expected shape {expected}"
                )
            elif not source.fits(located.tensor, parameter.shape):
                shape = tuple(located.tensor.shape)
                found.append(
                    f"{self.name}: key {located.name} in {located.file} has shape {shape}; expected {expected}"
                )
        for located in self.unused():
            if not any(part in located.name for part in _UNUSED):
                shape = tuple(located.tensor.shape)
                found.append(f"{self.name}: unexpected key {located.name} of shape {shape} in {located.file}")
        return found

    def unused(self) -> list[Located]:
        """Published tensors of this component that no tensor of ours takes."""
        used = {source.key for source in self.key_map.values()}
        return [located for key, located in self.tensors.items() if key not in used]

    def save(self, directory: Path, dtype: torch.dtype) -> None:
        """Fill the model, write it below `directory`, and let go of its memory."""
        state = {
            ours: self.key_map[ours]
            .take(self.tensors[self.key_map[ours].key].tensor, parameter.shape)
            .to(dtype)
            for ours, parameter in self.model.state_dict().items()
        }
        self.model.load_state_dict(state, assign=True)
        self.model.save_pretrained(directory / self.name, max_shard_size=MAX_SHARD)
        self.model.to("meta")


def plan_parts(files: PublishedFiles, params: PublishedParams) -> list[Part]:
    """All components with weights, in the published order of precedence.

    The text tower of model.ckpt overrides the one of the OpenCLIP file, the temporal file overrides the
    temporal layers of model.ckpt, and only the OpenCLIP file has the vision tower. Without an adapter file
    the adapter is a new one, see `new_adapter`.

    Raises:
        ConversionError: hyperparameters that no model can have.
    """
    _check_heads(params)
    unet_config = architecture.unet_config(params)
    with torch.device("meta"):
        unet = StyleCrafterUNet(**unet_config)
        vae = AutoencoderKL(**architecture.vae_config(params))
        adapter = StyleAdapter(**architecture.adapter_config(params, unet.style_layer_channels))
        text = CLIPTextModelWithProjection(CLIPTextConfig(**architecture.text_config(params)))
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**architecture.vision_config(params)))
    unet_tensors = files.under("checkpoint", UNET) | files.under("temporal")
    text_tensors = files.under("open_clip", without=VISION) | files.under("checkpoint", TEXT)

    def part(
        name: str, model: Any, key_map: KeyMap, tensors: dict[str, Located], prefix: str, *roles: str
    ) -> Part:
        paths = tuple(files.paths[role] for role in roles if role in files.paths)
        return Part(name, model, key_map, tensors, prefix, paths)

    unet_map = key_maps.unet_map(unet.state_dict(), unet_config)
    vae_map = key_maps.vae_map(vae.state_dict(), len(params.vae["ch_mult"]))
    if "adapter" in files.paths:
        adapter_map = key_maps.adapter_map(adapter.state_dict(), unet_config)
        style = part("style_adapter", adapter, adapter_map, files.under("adapter"), "", "adapter")
    else:
        adapter_map, tensors = new_adapter(adapter, unet_map, unet_config, unet_tensors)
        style = part("style_adapter", adapter, adapter_map, tensors, UNET, "checkpoint")
    text_map, vision_map = (key_maps.clip_map(tower.state_dict()) for tower in (text, vision))
    parts = [
        part("unet", unet, unet_map, unet_tensors, UNET, "checkpoint", "temporal"),
        part("vae", vae, vae_map, files.under("checkpoint", VAE), VAE, "checkpoint"),
        style,
        part("text_encoder", text, text_map, text_tensors, "", "checkpoint", "open_clip"),
        part("image_encoder", vision, vision_map, files.under("open_clip", VISION), VISION, "open_clip"),
    ]
    if params.depth is not None:
        config = architecture.depth_config(params, len(depth_feature_places(unet_config)))
        with torch.device("meta"):
            depth_adapter = T2IAdapter(**config)
        depth_map = key_maps.depth_map(depth_adapter.state_dict(), config["num_res_blocks"])
        tensors = files.under("depth_adapter")
        parts.append(part("depth_adapter", depth_adapter, depth_map, tensors, "", "depth_adapter"))
    return parts


def new_adapter(
    adapter: StyleAdapter,
    unet_map: KeyMap,
    unet_config: Mapping[str, Any],
    unet_tensors: Mapping[str, Located],
) -> tuple[KeyMap, dict[str, Located]]:
    """Map and tensors of an adapter that nobody has trained: always the same ones for the same UNet.

    Style keys and values are the published tensors of the text's (as the authors began their training); the
    rest is freshly drawn.

    Args:
        adapter: its config counts; it may be on the meta device.
    """
    # The meta device would draw nothing; elsewhere the numbers of the caller's generator stay as they are.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(_NEW_ADAPTER_SEED)
        drawn = StyleAdapter.from_config(adapter.config).state_dict()
    copied = {
        ours: unet_map[text]
        for ours, text in key_maps.text_projections(adapter.state_dict(), unet_config).items()
    }
    key_map = {ours: copied.get(ours, key_maps.Source(ours)) for ours in drawn}
    tensors = {ours: Located(drawn[ours], Path("new weights"), ours) for ours in drawn.keys() - copied.keys()}
    found = {source.key for source in copied.values()} & unet_tensors.keys()
    return key_map, tensors | {key: unet_tensors[key] for key in found}


def _check_heads(params: PublishedParams) -> None:
    for model, config, width in (
        ("style transformer", params.style, params.style["in_dim"]),
        ("scale predictor", params.scales, params.style["out_dim"]),
    ):
        if width % config["num_heads"]:
            raise ConversionError(
                f"{model}: num_heads = {config['num_heads']} does not divide its width {width}; give another in "
                "the adapter_config of the architecture file"
            )


def plan_problems(files: PublishedFiles, parts: list[Part]) -> list[str]:
    """Everything that keeps the files from becoming these parts; empty if nothing does."""
    problems = _width_problems(parts) + _depth_problems(parts)
    problems += [problem for part in parts for problem in part.problems()]
    if "temporal" not in files.paths:
        return problems
    # A key that is neither in the temporal file nor temporal would pass unnoticed with model.ckpt's.
    (unet,) = (part for part in parts if part.name == "unet")
    expected = {source.key for ours, source in unet.key_map.items() if key_maps.is_temporal(ours)}
    found, path = set(files.tensors["temporal"]), files.paths["temporal"]
    problems += [f"temporal: key {key} is missing in {path}" for key in sorted(expected - found)]
    return problems + [
        f"temporal: key {key} in {path} is no temporal layer of this UNet" for key in sorted(found - expected)
    ]


def _width_problems(parts: list[Part]) -> list[str]:
    """Files of different models: each fits its own architecture, but not the others."""
    config = {part.name: part.model.config for part in parts}
    widths = (
        ("text tokens", config["unet"].cross_attention_dim, config["text_encoder"].hidden_size),
        ("style tokens", config["unet"].cross_attention_dim, config["style_adapter"].context_dim),
        ("image tokens", config["style_adapter"].image_dim, config["image_encoder"].hidden_size),
        ("latent channels", config["unet"].in_channels, config["vae"].latent_channels),
    )
    return [
        f"{name}: width {found}, but the model that takes them expects {expected}"
        for name, expected, found in widths
        if expected != found
    ]


def _depth_problems(parts: list[Part]) -> list[str]:
    """A depth adapter whose features this UNet has no place for."""
    config = {part.name: part.model.config for part in parts}
    if "depth_adapter" not in config:
        return []
    if problem := depth.misfit(config["unet"]):
        return [f"depth adapter: {problem}"]
    expected = [channels for channels, _ in depth_feature_places(config["unet"])]
    if (found := list(config["depth_adapter"].channels)) != expected:
        return [
            f"depth adapter: features have widths {found}, but the UNet that takes them expects {expected}"
        ]
    return []


def skipped_keys(files: PublishedFiles, parts: list[Part]) -> dict[str, list[str]]:
    """Keys of each file that inference does not use."""
    left = [located for part in parts for located in part.unused()]
    left += [
        located for key, located in files.under("checkpoint").items() if not key.startswith((UNET, VAE, TEXT))
    ]
    skipped: dict[str, list[str]] = {}
    for located in left:
        skipped.setdefault(str(located.file), []).append(located.name)
    return skipped
