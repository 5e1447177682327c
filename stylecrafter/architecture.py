"""Configs of our components from published hyperparameters."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler

from stylecrafter.checkpoint_files import ConversionError
from stylecrafter.model_directory import PUBLISHED_GENERATION
from stylecrafter.noise_schedule import PUBLISHED_SCHEDULE, ScaledDDIMScheduler
from stylecrafter.published_params import PublishedParams
from stylecrafter.unet import ATTENTION_DOWN, ATTENTION_UP, PLAIN_DOWN, PLAIN_UP, PUBLISHED_FPS

Params = dict[str, Any]
_CLASS_SCALE = 0.3  # what the published class takes where a config scales signals without saying how far


def unet_config(params: PublishedParams) -> Params:
    """Arguments of `StyleCrafterUNet`."""
    unet = params.unet
    attention = [2**level in unet["attention_resolutions"] for level in range(len(unet["channel_mult"]))]
    return {
        "in_channels": unet["in_channels"],
        "out_channels": unet["out_channels"],
        "down_block_types": tuple(ATTENTION_DOWN if has else PLAIN_DOWN for has in attention),
        "up_block_types": tuple(ATTENTION_UP if has else PLAIN_UP for has in reversed(attention)),
        "block_out_channels": tuple(unet["model_channels"] * m for m in unet["channel_mult"]),
        "layers_per_block": unet["num_res_blocks"],
        "cross_attention_dim": unet["context_dim"],
        "attention_head_dim": unet["num_head_channels"],
        "temporal_length": unet["temporal_length"],
        "relative_position": unet["use_relative_position"],
        "temporal_conv": unet["temporal_conv"],
        "fps_cond": unet["fps_cond"],
    }


def vae_config(params: PublishedParams) -> Params:
    """Arguments of `AutoencoderKL`."""
    vae = params.vae
    levels = len(vae["ch_mult"])
    return {
        "block_out_channels": tuple(vae["ch"] * m for m in vae["ch_mult"]),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": vae["num_res_blocks"],
        "latent_channels": vae["z_channels"],
        "scaling_factor": params.diffusion.get("scale_factor", 0.18215),
    }


def adapter_config(params: PublishedParams, layer_channels: tuple[int, ...]) -> Params:
    """Arguments of `StyleAdapter`."""
    style, scales = params.style, params.scales
    return {
        "image_dim": style["in_dim"],
        "context_dim": style["out_dim"],
        "num_style_tokens": style["num_tokens"],
        "num_layers": style["n_layers"],
        "num_heads": style["num_heads"],
        "scale_num_layers": scales["n_layers"],
        "scale_num_heads": scales["num_heads"],
        "scale_hidden_dim": scales["hidden"],
        "layer_channels": layer_channels,
    }


def depth_config(params: PublishedParams, levels: int) -> Params:
    """Arguments of `T2IAdapter` with as many levels as the UNet takes features.

    Raises:
        ConversionError: the adapter's blocks do not divide into so many levels.
    """
    assert params.depth is not None
    widths = params.depth["block_widths"]
    if not levels or not widths or len(widths) % levels:
        raise ConversionError(
            f"depth adapter: it has {len(widths)} blocks; this UNet takes {levels} feature maps, "
            "which the blocks must divide into"
        )
    per_level = len(widths) // levels
    return {
        "in_channels": 1,
        "channels": widths[::per_level],
        "num_res_blocks": per_level,
        "downscale_factor": params.depth["unshuffle"],
        "adapter_type": "full_adapter",
    }


def _clip_tower(params: PublishedParams, part: str, heads: int) -> Params:
    tower = params.clip[part]
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower.get("mlp_ratio", 4.0)),
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": heads,
        "projection_dim": params.clip["embed_dim"],
        "hidden_act": "quick_gelu" if params.clip["quick_gelu"] else "gelu",
    }


def text_config(params: PublishedParams) -> Params:
    """Arguments of `CLIPTextConfig`; the last two ids are the markers, as in the CLIP vocabulary."""
    text = params.clip["text_cfg"]
    return _clip_tower(params, "text_cfg", text["heads"]) | {
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
        "pad_token_id": 0,
        "bos_token_id": text["vocab_size"] - 2,
        "eos_token_id": text["vocab_size"] - 1,
    }


def vision_config(params: PublishedParams) -> Params:
    """Arguments of `CLIPVisionConfig`."""
    vision = params.clip["vision_cfg"]
    return _clip_tower(params, "vision_cfg", vision["width"] // vision.get("head_width", 64)) | {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
    }


def scheduler(params: PublishedParams) -> DDIMScheduler:
    """The published sampler on the noise schedule of these weights."""
    diffusion = params.diffusion
    config = PUBLISHED_SCHEDULE | {
        "num_train_timesteps": diffusion.get("timesteps", 1000),
        "beta_start": diffusion.get("linear_start", PUBLISHED_SCHEDULE["beta_start"]),
        "beta_end": diffusion.get("linear_end", PUBLISHED_SCHEDULE["beta_end"]),
        "prediction_type": "epsilon",
    }
    if not diffusion.get("use_scale", False):
        return DDIMScheduler(**config)
    return ScaledDDIMScheduler(**config, signal_scale=diffusion.get("scale_b", _CLASS_SCALE))


def generation_config(params: PublishedParams) -> Params:
    """Generation settings: the published ones with the native size and length of these weights."""
    factor = 2 ** (len(params.vae["ch_mult"]) - 1)
    conditioning = {"conditioning_fps": PUBLISHED_FPS} if params.unet["fps_cond"] else {}
    latent_height, latent_width = params.diffusion.get("image_size", (320 // 8, 512 // 8))
    own = {
        "height": latent_height * factor,
        "width": latent_width * factor,
        "num_frames": params.unet["temporal_length"],
        "style_scale": params.adapter.get("scale", 1.0),
        "image": PUBLISHED_GENERATION["image"] | {"height": 64 * factor, "width": 64 * factor},
    }
    return PUBLISHED_GENERATION | own | conditioning
