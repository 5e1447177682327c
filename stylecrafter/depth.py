"""Depth guidance: depth clips to the features that the UNet adds on its way down.

A T2I-Adapter (Mou et al. 2023) makes one map of features for every third block of the UNet's way down; they
are added there, unweighted, so that the main path and the skip both hold the sum.

Shapes: B rows, T frames, H, W pixels, N = B*T (row major), C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import T2IAdapter
from diffusers.utils.accelerate_utils import apply_forward_hook
from einops import rearrange
from PIL import Image

from stylecrafter.unet_layout import depth_feature_places

DepthClip = np.ndarray | torch.Tensor | Sequence[Image.Image]
NORMALISATIONS = ("clip", "frame")
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")
_LUMA = (0.299, 0.587, 0.114)  # what a video codec keeps of a grey picture
_FLAT = 1e-7


def prepare_depth(
    clip: DepthClip, num_frames: int, height: int, width: int, normalisation: str = "clip"
) -> torch.Tensor:
    """A depth clip as the adapter takes it: float32 [1, T, H, W] in [-1, 1].

    Frames are chosen evenly from first to last (a still is repeated), resized bilinearly as published, and
    brought to [-1, 1]. Which end is near is a matter of what the adapter was trained on (the published
    depth network, MiDaS, gives larger values nearby).

    Args:
        clip: [T, H, W], [T, H, W, 1] or [T, H, W, 3] (RGB) of any real type and range, or pictures.
        num_frames, height, width: of the result.
        normalisation: "clip" takes minimum and maximum over all frames, so that a scene which moves
            towards the camera does so in the depth too; "frame" takes them per frame, as published.

    Raises:
        ValueError: another shape, no frames, values that are not finite, or another normalisation.
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f"normalisation is {normalisation!r}; allowed are {', '.join(map(repr, NORMALISATIONS))}"
        )
    chosen = torch.linspace(0, max(len(clip) - 1, 0), num_frames).round().long()
    frames_THW = _grey_frames(clip, chosen)
    depth_1THW = F.interpolate(frames_THW[None], (height, width), mode="bilinear", align_corners=False)
    over = (1, 2, 3) if normalisation == "clip" else (2, 3)
    low, high = depth_1THW.amin(over, keepdim=True), depth_1THW.amax(over, keepdim=True)
    return 2 * (depth_1THW - low) / (high - low + _FLAT) - 1


def _grey_frames(clip: DepthClip, chosen: torch.Tensor) -> torch.Tensor:
    """The chosen frames as they are, float32 [T, H, W]: of a long clip no more than these is converted."""
    if not isinstance(clip, np.ndarray | torch.Tensor):
        pictures = [clip[index] for index in chosen.tolist()] if len(clip) else []
        clip = np.array([np.asarray(x if x.mode in _GREY_MODES else x.convert("RGB")) for x in pictures])
        chosen = torch.arange(len(pictures))
    shape = tuple(clip.shape)
    if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise ValueError(
            f"depth clip has shape {shape}; allowed are [T, H, W], [T, H, W, 1] and [T, H, W, 3], not empty"
        )
    values = clip[chosen] if isinstance(clip, torch.Tensor) else clip[chosen.numpy()].astype(np.float32)
    values = torch.as_tensor(values).float()
    # Of whole numbers nothing need be read: a dry run has none.
    is_real = clip.is_floating_point() if isinstance(clip, torch.Tensor) else clip.dtype.kind == "f"
    if is_real and not torch.isfinite(values).all():
        raise ValueError("depth clip has values that are not finite; allowed are finite numbers")
    if values.ndim == 3:
        return values
    return values[..., 0] if values.shape[3] == 1 else values @ torch.tensor(_LUMA)


def depth_size(
    adapter: T2IAdapter, unet_config: Mapping[str, Any], latent_height: int, latent_width: int
) -> tuple[int, int]:
    """Height and width of the depth that gives features for latents of this size (their pixel size, as published)."""
    _, stride = depth_feature_places(unet_config)[0]
    factor = adapter.downscale_factor
    return latent_height // stride * factor, latent_width // stride * factor


@apply_forward_hook  # an offloaded adapter comes to the device for it
def depth_features(adapter: T2IAdapter, depth_BTHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Features [N, C, H, W] for `StyleCrafterUNet.forward`, made once for all denoising steps."""
    parameter = next(adapter.parameters())
    frames_N1HW = rearrange(depth_BTHW, "b t h w -> (b t) 1 h w")
    return tuple(adapter(frames_N1HW.to(parameter.device, parameter.dtype)))


def new_depth_adapter(unet_config: Mapping[str, Any], vae_scale_factor: int) -> T2IAdapter:
    """An untrained depth adapter for a UNet, in the published form (77,000,640 parameters at full size).

    Raises:
        ValueError: the UNet's places for features do not halve from one to the next.
    """
    if problem := misfit(unet_config):
        raise ValueError(problem)
    channels, strides = zip(*depth_feature_places(unet_config), strict=True)
    return T2IAdapter(
        in_channels=1,
        channels=list(channels),
        num_res_blocks=2,
        downscale_factor=vae_scale_factor * strides[0],
        adapter_type="full_adapter",
    )


def misfit(unet_config: Mapping[str, Any]) -> str | None:
    """Why this UNet can have no depth adapter; None if it can."""
    strides = [stride for _, stride in depth_feature_places(unet_config)]
    if strides and strides == [strides[0] * 2**level for level in range(len(strides))]:
        return None
    return (
        f"layers_per_block is {unet_config['layers_per_block']} on "
        f"{len(unet_config['block_out_channels'])} levels, where depth features have sizes 1/{strides}; "
        "a depth adapter needs at least one, each half as large as the one before"
    )
