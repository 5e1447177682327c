"""Switches that trade memory, time and exactness, none of which the published code has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import PyramidAttentionBroadcastConfig
from torch import nn

from stylecrafter.stages import StyleCrafterStages

# Names of our attention modules. The leading dot keeps `.temp_attentions.` out of the spatial ones.
_SPATIAL = (r"\.attentions\.",)
_TEMPORAL = (r"\.temp_attentions\.", r"^transformer_in\.")


@dataclass(frozen=True)
class SpeedOptions:
    """What to switch on; the defaults change nothing.

    Attributes:
        vae_slicing: decode one frame at a time, whatever `chunk_frames` says: less memory, same frames.
        vae_tiling: decode large frames in overlapping tiles (256 pixels at full size): less memory, slightly
            other pixels.
        channels_last: convolutions in the memory format that GPUs prefer; results differ by rounding.
        fp8_weights: keep the UNet's linear and convolution weights in 8 bits (float8_e4m3fn) and widen each
            layer's while it runs: half the memory of 16 bits, and rounded weights.
        attention_broadcast: compute spatial, temporal and cross-attention anew only every so many steps
            between timesteps 800 and 100, such as (2, 4, 6), and repeat the last result in between (Zhao et
            al. 2024, "Pyramid Attention Broadcast"); 1: every step. None: off.
        compile: compile the UNet with torch.compile at its first use.
    """

    vae_slicing: bool = False
    vae_tiling: bool = False
    channels_last: bool = False
    fp8_weights: bool = False
    attention_broadcast: tuple[int, int, int] | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if self.attention_broadcast is not None and min(self.attention_broadcast) < 1:
            raise ValueError(
                f"attention_broadcast is {self.attention_broadcast}; allowed are three numbers of 1 or more"
            )


def apply_speed_options(pipeline: StyleCrafterStages, options: SpeedOptions) -> None:
    """Switch options on, once per pipeline, after it has been moved to its device; 8-bit weights stay so.

    Raises:
        ValueError: attention broadcast is on already.
    """
    unet = pipeline.unet
    if options.vae_slicing:
        pipeline.vae.enable_slicing()
    if options.vae_tiling:
        pipeline.vae.enable_tiling()
    if options.channels_last:
        for model in (unet, pipeline.vae):
            to_channels_last(model)
    if options.attention_broadcast is not None:
        spatial, temporal, cross = options.attention_broadcast
        unet.enable_cache(
            PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=spatial,
                temporal_attention_block_skip_range=temporal,
                cross_attention_block_skip_range=cross,
                spatial_attention_block_identifiers=_SPATIAL,
                temporal_attention_block_identifiers=_TEMPORAL,
                cross_attention_block_identifiers=_SPATIAL,
                current_timestep_callback=lambda: unet.current_timestep,
            )
        )
    if options.fp8_weights:
        unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=unet.dtype)
    if options.compile:
        unet.compile()


def to_channels_last(model: nn.Module) -> None:
    """Convolution weights in the memory format of channels last; their inputs follow."""
    # Module by module: a format for one number of dimensions refuses weights of another.
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            last = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.weight.data = module.weight.data.contiguous(memory_format=last)
