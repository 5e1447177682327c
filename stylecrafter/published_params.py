"""Hyperparameters of published weights under their published names (`model_channels`, ...).

They come from config files where there are any, else from tensor shapes, else from published defaults.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylecrafter.checkpoint_files import ConversionError, PublishedFiles

Params = dict[str, Any]

# What the published configs can ask for and this library has in one form only.
_REQUIRED: dict[str, Params] = {
    "unet": {
        "transformer_depth": 1,
        "use_linear": True,
        "temporal_attention": True,
        "temporal_selfatt_only": True,
        "use_causal_attention": False,
        "addition_attention": True,
    },
    "diffusion": {"parameterization": "eps", "beta_schedule": "linear"},
    "adapter": {"use_norm": True},
}


@dataclass(frozen=True)
class PublishedParams:
    """Hyperparameters under their published names, and where they came from."""

    unet: Params
    vae: Params
    style: Params
    scales: Params
    clip: Params
    diffusion: Params
    adapter: Params
    depth: Params | None
    origin: tuple[str, ...]


def published_params(files: PublishedFiles, config: Path | None, clip_config: Path | None) -> PublishedParams:
    """Hyperparameters from tensor shapes, overridden by what the config files say.

    Args:
        files: the published files; the roles checkpoint, adapter, open_clip and depth_adapter are looked at.
            Without an adapter, its hyperparameters are the published ones in the widths of the other models.
        config: published inference config (YAML or JSON).
        clip_config: OpenCLIP's model config (JSON).

    Raises:
        ConversionError: a tensor that tells the architecture is missing, or a config asks for a
            variant that this library does not have.
    """
    given = _read_config(config) if config else {}
    given_clip = _read_clip_config(clip_config) if clip_config else {}
    inferred_clip = _infer_clip(_Shapes(files, "open_clip"))
    clip = {
        name: value | given_clip.get(name, {}) if isinstance(value, dict) else given_clip.get(name, value)
        for name, value in inferred_clip.items()
    }
    unet = _infer_unet(_Shapes(files, "checkpoint", "model.diffusion_model.")) | given.get("unet", {})
    style, scales = _infer_adapter(files) if "adapter" in files.paths else _new_adapter(unet, clip)
    return PublishedParams(
        unet=unet,
        vae=_infer_vae(_Shapes(files, "checkpoint", "first_stage_model.")) | given.get("vae", {}),
        style=style | given.get("style", {}),
        scales=scales | given.get("scales", {}),
        clip=clip,
        diffusion=_infer_schedule(files) | given.get("diffusion", {}),
        adapter=given.get("adapter", {}),
        depth=_infer_depth(_Shapes(files, "depth_adapter")) if "depth_adapter" in files.paths else None,
        origin=(
            *(str(path) for path in (config, clip_config) if path),
            "tensor shapes",
            "published defaults",
        ),
    )


# ---- Config files ----------------------------------------------------------------------------------


def _read_config(path: Path) -> dict[str, Params]:
    import yaml  # JSON is YAML; transformers brings the parser

    try:
        model = yaml.safe_load(path.read_text())["model"]["params"]
        sections = {
            "unet": model["unet_config"]["params"],
            "vae": _section(model, "first_stage_config", "ddconfig"),
            "style": _section(model, "adapter_config", "image_context_config", "params"),
            "scales": _section(model, "adapter_config", "scale_predictor_config", "params"),
            "diffusion": _plain_values(model),
            "adapter": _plain_values(_section(model, "adapter_config")),
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: not a published inference config ({error!r})") from error
    for section, required in _REQUIRED.items():
        for name, supported in required.items():
            if (value := sections[section].get(name, supported)) != supported:
                raise ConversionError(f"{path}: {section} {name} is {value!r}; supported is {supported!r}")
    return sections


def _section(model: Params, stage: str, *path: str) -> Params:
    """Parameters of one stage, or of a part of it; empty if the config leaves them out."""
    section = model.get(stage, {}).get("params", {})
    for name in path:
        section = section.get(name, {})
    return section


def _plain_values(params: Params) -> Params:
    return {name: value for name, value in params.items() if not isinstance(value, dict)}


def _read_clip_config(path: Path) -> Params:
    try:
        content = json.loads(path.read_text())
        content = content.get("model_cfg", content)
        required = {name: content[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ConversionError(f"{path}: not an OpenCLIP model config ({error!r})") from error
    return required | {"quick_gelu": content.get("quick_gelu", False)}


# ---- Tensor shapes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shapes:
    """Shapes of one published file, of the keys under a prefix."""

    files: PublishedFiles
    role: str
    prefix: str = ""

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self.files.tensors[self.role]

    def __getitem__(self, key: str) -> tuple[int, ...]:
        if key not in self:
            raise ConversionError(
                f"key {self.prefix}{key} is missing in {self.files.paths[self.role]}; "
                "the architecture cannot be told without it"
            )
        return tuple(self.files.tensors[self.role][self.prefix + key].shape)

    def count(self, before: str) -> int:
        """How many numbers follow `before` among the keys."""
        pattern = re.compile(re.escape(self.prefix + before) + r"(\d+)\.")
        return len({found[1] for key in self.files.tensors[self.role] if (found := pattern.match(key))})


_INPUT_HEADS = 8  # of the input's temporal transformer, in every published model
_TEMPORAL_LENGTH = 16  # where no table of relative positions tells


def _infer_unet(shapes: _Shapes) -> Params:
    channels, in_channels = shapes["input_blocks.0.0.weight"][:2]
    mult: list[int] = []
    resolutions: set[int] = set()
    level, layers = 0, [0]
    for index in range(1, shapes.count("input_blocks.")):
        block = f"input_blocks.{index}"
        if f"{block}.0.op.weight" in shapes:
            level += 1
            layers.append(0)
            continue
        layers[level] += 1
        mult[level:] = [shapes[f"{block}.0.out_layers.3.weight"][0] // channels]
        if f"{block}.1.norm.weight" in shapes:
            resolutions.add(2**level)
    attention = "middle_block.{}.transformer_blocks.0.{}"
    table = attention.format(2, "attn1.relative_position_k.embeddings_table")
    return {
        "in_channels": in_channels,
        "out_channels": shapes["out.2.weight"][0],
        "model_channels": channels,
        "channel_mult": mult,
        "num_res_blocks": layers[0],
        "attention_resolutions": sorted(resolutions),
        "num_head_channels": shapes["init_attn.0.proj_in.weight"][0] // _INPUT_HEADS,
        "temporal_length": (shapes[table][0] - 1) // 2 if table in shapes else _TEMPORAL_LENGTH,
        "context_dim": shapes[attention.format(1, "attn2.to_k.weight")][1],
        "use_relative_position": table in shapes,
        "temporal_conv": "input_blocks.1.0.temopral_conv.conv1.0.weight" in shapes,
        "fps_cond": "fps_embedding.0.weight" in shapes,
    }


def _infer_schedule(files: PublishedFiles) -> Params:
    """Whether signals are scaled beside the noise (`scale_arr`), and down to what."""
    scales = files.tensors["checkpoint"].get("scale_arr")
    if scales is None:
        return {}
    # A layout without data cannot tell: VideoCrafter2's value.
    return {"use_scale": True, "scale_b": 0.7 if scales.is_meta else round(float(scales[-1]), 6)}


def _infer_vae(shapes: _Shapes) -> Params:
    channels = shapes["encoder.conv_in.weight"][0]
    levels = range(shapes.count("encoder.down."))
    widths = [shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in levels]
    return {
        "ch": channels,
        "ch_mult": [width // channels for width in widths],
        "num_res_blocks": shapes.count("encoder.down.0.block."),
        "z_channels": shapes["post_quant_conv.weight"][1],
    }


def _infer_adapter(files: PublishedFiles) -> tuple[Params, Params]:
    """Parameters of the style transformer and of the scale predictor."""
    return (
        _infer_style(_Shapes(files, "adapter", "image_context_model.")),
        _infer_scales(_Shapes(files, "adapter", "scale_predictor.")),
    )


def _new_adapter(unet: Params, clip: Params) -> tuple[Params, Params]:
    """The same for an adapter that is yet to be trained: as published, as wide as the models around it."""
    style = {
        "in_dim": clip["vision_cfg"]["width"],
        "out_dim": unet["context_dim"],
        "num_tokens": 8,
        "n_layers": 3,
        "num_heads": 8,
    }
    return style, {"hidden": 32, "n_layers": 2, "num_heads": 8}


def _infer_style(shapes: _Shapes) -> Params:
    in_dim, out_dim = shapes["proj"]
    return {
        "in_dim": in_dim,
        "out_dim": out_dim,
        "num_tokens": shapes["style_emb"][1],
        "n_layers": shapes.count("transformer_blocks.resblocks."),
        "num_heads": 8,
    }


def _infer_scales(shapes: _Shapes) -> Params:
    return {
        "hidden": shapes["out.0.weight"][0],
        "n_layers": shapes.count("transformer_blocks.resblocks."),
        "num_heads": 8,
    }


def _infer_depth(shapes: _Shapes) -> Params:
    """The width of every residual block; how many make a level, shapes do not tell."""
    inputs = shapes["conv_in.weight"][1]
    unshuffle = math.isqrt(inputs)
    if unshuffle**2 != inputs:
        raise ConversionError(
            f"{shapes.files.paths[shapes.role]}: conv_in.weight takes {inputs} channels; a depth adapter takes "
            "a square of the factor that it reduces grey pictures by (8 x 8 = 64 as published)"
        )
    blocks = shapes.count("body.")
    widths = [shapes[f"body.{index}.block1.weight"][0] for index in range(blocks)]
    return {"unshuffle": unshuffle, "block_widths": widths}


def _infer_clip(shapes: _Shapes) -> Params:
    vocab, text_width = shapes["token_embedding.weight"]
    width, _, patch, _ = shapes["visual.conv1.weight"]
    return {
        "embed_dim": shapes["visual.proj"][1],
        "quick_gelu": False,
        "text_cfg": {
            "vocab_size": vocab,
            "context_length": shapes["positional_embedding"][0],
            "width": text_width,
            "heads": max(text_width // 64, 1),
            "layers": shapes.count("transformer.resblocks."),
        },
        "vision_cfg": {
            "image_size": round((shapes["visual.positional_embedding"][0] - 1) ** 0.5) * patch,
            "patch_size": patch,
            "width": width,
            # Shapes do not tell; 80 is ViT-H/14's, 64 the usual one, and narrow towers have one head.
            "head_width": 80 if width == 1280 else min(width, 64),
            "layers": shapes.count("visual.transformer.resblocks."),
        },
    }
