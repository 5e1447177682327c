"""The StyleCrafter video UNet as a subclass of diffusers' UNet3DConditionModel.

Shapes: B rows, C latent channels, T frames, H, W latent pixels, N = B*T (row major),
S text tokens, E channels of text and time embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

# diffusers finds out how to load a component by the base class that the component's module names.
from diffusers import ModelMixin as ModelMixin
from diffusers import UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint

from stylecrafter.attention import (
    DualCrossAttention,
    RelativeTemporalAttention,
    SpatialSelfAttention,
    StyleCondition,
)

ATTENTION_DOWN, PLAIN_DOWN = "CrossAttnDownBlock3D", "DownBlock3D"
ATTENTION_UP, PLAIN_UP = "CrossAttnUpBlock3D", "UpBlock3D"


@dataclass(frozen=True)
class _Context:
    """What every layer of one forward pass shares."""

    time_NE: torch.Tensor
    text_BSE: torch.Tensor
    style: StyleCondition | None
    frames: int
    temporal: bool


class StyleCrafterUNet(UNet3DConditionModel):
    """UNet of VideoCrafter1 as StyleCrafter uses it (paper, section 3; 1,144,485,956 parameters).

    It differs from its base class in four ways: no temporal convolutions; temporal attention has
    learned relative positions; spatial cross-attention also takes style; `image_mode` skips every
    temporal layer. All arguments but the last are the base class's.

    Args:
        temporal_length: relative positions are told apart up to this many frames.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (ATTENTION_DOWN, ATTENTION_DOWN, ATTENTION_DOWN, PLAIN_DOWN),
        up_block_types: tuple[str, ...] = (PLAIN_UP, ATTENTION_UP, ATTENTION_UP, ATTENTION_UP),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1.0,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        num_attention_heads: int | None = None,
        time_cond_proj_dim: int | None = None,
        temporal_length: int = 16,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        self.gradient_checkpointing = False
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            block.temp_convs = nn.ModuleList()
        self._install_processors(attention_head_dim, temporal_length)

    def _install_processors(self, head_dim: int, temporal_length: int) -> None:
        for index, transformer in enumerate(self.spatial_transformers()):
            block = transformer.transformer_blocks[0]
            block.attn1.set_processor(SpatialSelfAttention())
            block.attn2.set_processor(DualCrossAttention(index))
        for transformer in self.temporal_transformers():
            block = transformer.transformer_blocks[0]
            block.attn1.set_processor(RelativeTemporalAttention(head_dim, temporal_length))
            block.attn2.set_processor(RelativeTemporalAttention(head_dim, temporal_length))

    def spatial_transformers(self) -> Iterator[Any]:
        """Spatial transformers in the order of the fusion scales: down, middle, up."""
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            yield from getattr(block, "attentions", ())

    def temporal_transformers(self) -> Iterator[Any]:
        """What stage 2 of the training trains and image mode skips; the first is the input's."""
        yield self.transformer_in
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            yield from getattr(block, "temp_attentions", ())

    @property
    def style_layer_channels(self) -> tuple[int, ...]:
        """Width of each style cross-attention, in the order of the fusion scales."""
        return tuple(t.transformer_blocks[0].attn2.inner_dim for t in self.spatial_transformers())

    @property
    def size_multiple(self) -> int:
        """Latent height and width must be multiples of this."""
        return int(2**self.num_upsamplers)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: None = None) -> None:
        """Recompute each layer in the backward pass (the base class cannot)."""
        self.gradient_checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        """Keep all activations again."""
        self.gradient_checkpointing = False

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | int,
        encoder_hidden_states: torch.Tensor,
        style: StyleCondition | None = None,
        image_mode: bool = False,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[torch.Tensor]:
        """Predict the noise (or velocity) in a batch of latent videos.

        Args:
            sample: noisy latents [B, C, T, H, W].
            timestep: one training timestep, or one per row [B].
            encoder_hidden_states: text embedding [B, S, E], once per row.
            style: see `StyleAdapter.condition`; without it the text alone is attended to.
            image_mode: skip all temporal layers (not the same as a video of one frame).

        Raises:
            ValueError: H or W is no multiple of `size_multiple`.
        """
        batch, _, frames, height, width = sample.shape
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"latent size is {height}x{width}; height and width must be multiples of {self.size_multiple}"
            )
        time_NE = self._embed_time(timestep, batch, sample.device).repeat_interleave(frames, dim=0)
        context = _Context(time_NE, encoder_hidden_states, style, frames, temporal=not image_mode)
        x = self.conv_in(rearrange(sample, "b c t h w -> (b t) c h w"))
        if context.temporal:
            x = self._recomputed(self._over_time, self.transformer_in, self._input_of_training(x), context)
        x, skips = self._down(x, context)
        x = self._middle(x, context)
        x = self._up(x, skips, context)
        x = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        x = rearrange(x, "(b t) c h w -> b c t h w", b=batch)
        return UNet3DConditionOutput(sample=x) if return_dict else (x,)

    def _embed_time(self, timestep: torch.Tensor | int, batch: int, device: torch.device) -> torch.Tensor:
        timestep_B = torch.as_tensor(timestep, device=device).expand(batch)
        return self.time_embedding(self.time_proj(timestep_B).to(self.dtype))

    def _input_of_training(self, x: torch.Tensor) -> torch.Tensor:
        # torch 2.13 crashes (SIGSEGV, CPU) in the backward pass of a GroupNorm that trains on a channels-last
        # input without gradient: what the input's transformer gets when it trains and `conv_in` does not.
        trains = torch.is_grad_enabled() and self.transformer_in.norm.weight.requires_grad
        return x.detach().requires_grad_() if trains and not x.requires_grad else x

    def _down(self, x: torch.Tensor, context: _Context) -> tuple[torch.Tensor, list[torch.Tensor]]:
        skips = [x]
        for block in self.down_blocks:
            for index in range(len(block.resnets)):
                x = self._layer(block, index, x, context)
                skips.append(x)
            for downsample in block.downsamplers or ():
                x = downsample(x)
                skips.append(x)
        return x, skips

    def _middle(self, x: torch.Tensor, context: _Context) -> torch.Tensor:
        return self._recomputed(self._run_middle, x, context)

    def _run_middle(self, x: torch.Tensor, context: _Context) -> torch.Tensor:
        first, second = self.mid_block.resnets
        x = first(x, context.time_NE)
        x = self._attend(self.mid_block, 0, x, context)
        return second(x, context.time_NE)

    def _up(self, x: torch.Tensor, skips: list[torch.Tensor], context: _Context) -> torch.Tensor:
        for block in self.up_blocks:
            for index in range(len(block.resnets)):
                x = self._layer(block, index, torch.cat([x, skips.pop()], dim=1), context)
            for upsample in block.upsamplers or ():
                x = upsample(x)
        return x

    def _layer(self, block: Any, index: int, x: torch.Tensor, context: _Context) -> torch.Tensor:
        return self._recomputed(self._run_layer, block, index, x, context)

    def _recomputed(self, function: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
        """The function of the inputs; with gradient checkpointing the backward pass runs it again."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *inputs, use_reentrant=False)
        return function(*inputs)

    def _run_layer(self, block: Any, index: int, x: torch.Tensor, context: _Context) -> torch.Tensor:
        x = block.resnets[index](x, context.time_NE)
        return self._attend(block, index, x, context)

    def _attend(self, block: Any, index: int, x: torch.Tensor, context: _Context) -> torch.Tensor:
        if not hasattr(block, "attentions"):
            return x
        x = block.attentions[index](
            x,
            encoder_hidden_states=context.text_BSE,
            cross_attention_kwargs={"style": context.style},
            return_dict=False,
        )[0]
        return self._over_time(block.temp_attentions[index], x, context) if context.temporal else x

    @staticmethod
    def _over_time(transformer: Any, x: torch.Tensor, context: _Context) -> torch.Tensor:
        return transformer(x, num_frames=context.frames, return_dict=False)[0]
