"""The StyleCrafter video UNet as a subclass of diffusers' UNet3DConditionModel.

Shapes: B rows, C latent channels, T frames, H, W latent pixels, N = B*T (row major),
S text tokens, E channels of text and time embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

# diffusers finds out how to load a component by the base class that the component's module names.
from diffusers import ModelMixin as ModelMixin
from diffusers import UNet3DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from einops import rearrange
from torch import nn
from torch.utils.checkpoint import checkpoint

from stylecrafter.attention import (
    DualCrossAttention,
    RelativeTemporalAttention,
    SpatialSelfAttention,
    StyleCondition,
)
from stylecrafter.long_video import over_windows
from stylecrafter.unet_layout import DEPTH_EVERY, check_depth_features, check_latent_size

ATTENTION_DOWN, PLAIN_DOWN = "CrossAttnDownBlock3D", "DownBlock3D"
ATTENTION_UP, PLAIN_UP = "CrossAttnUpBlock3D", "UpBlock3D"
PUBLISHED_FPS = 16
"""What a base with fps embedding takes when nobody says a rate, frames per second."""


@dataclass(frozen=True)
class _Context:
    """What every layer of one forward pass shares."""

    time_NE: torch.Tensor
    text_BSE: torch.Tensor
    style: StyleCondition | None
    frames: int
    temporal: bool
    depth_NCHW: Sequence[torch.Tensor]
    window: int | None  # of the temporal layers, frames; None: all see all


class StyleCrafterUNet(UNet3DConditionModel, CacheMixin):
    """UNet of VideoCrafter as StyleCrafter uses it (paper, section 3; 1,144,485,956 parameters by default).

    It differs from its base class so: spatial cross-attention also takes style; temporal attention may have
    learned relative positions; temporal convolutions and an fps embedding are optional; depth features are
    added on the way down; `image_mode` skips every temporal layer. All arguments but the last four are the
    base class's; the defaults of those four are VideoCrafter1's.

    Args:
        temporal_length: relative positions are told apart up to this many frames.
        relative_position: temporal attention knows the distance between frames (VideoCrafter1). Without,
            the order of frames enters through the temporal convolutions alone (VideoCrafter2).
        temporal_conv: every residual block ends with convolutions over time (VideoCrafter2).
        fps_cond: the frame rate is embedded beside the timestep (VideoCrafter2 and the 1024 model).
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
        relative_position: bool = True,
        temporal_conv: bool = False,
        fps_cond: bool = False,
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
        self._last_timestep: float | None = None
        self._last_batch = 0
        if not temporal_conv:
            for block in self._blocks():
                block.temp_convs = nn.ModuleList()
        if fps_cond:
            channels = block_out_channels[0]
            self.fps_embedding = TimestepEmbedding(channels, 4 * channels, act_fn=act_fn)
        self._install_processors(attention_head_dim, temporal_length if relative_position else None)

    def _install_processors(self, head_dim: int, temporal_length: int | None) -> None:
        for index, transformer in enumerate(self.spatial_transformers()):
            block = transformer.transformer_blocks[0]
            block.attn1.set_processor(SpatialSelfAttention())
            block.attn2.set_processor(DualCrossAttention(index))
        if temporal_length is None:
            return
        for transformer in self.temporal_transformers():
            block = transformer.transformer_blocks[0]
            block.attn1.set_processor(RelativeTemporalAttention(head_dim, temporal_length))
            block.attn2.set_processor(RelativeTemporalAttention(head_dim, temporal_length))

    def _blocks(self) -> tuple[Any, ...]:
        return (*self.down_blocks, self.mid_block, *self.up_blocks)

    def spatial_transformers(self) -> Iterator[Any]:
        """Spatial transformers in the order of the fusion scales: down, middle, up."""
        for block in self._blocks():
            yield from getattr(block, "attentions", ())

    def temporal_transformers(self) -> Iterator[Any]:
        """What stage 2 of the training trains and image mode skips; the first is the input's."""
        yield self.transformer_in
        for block in self._blocks():
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
        fps: torch.Tensor | int | None = None,
        depth_features: Sequence[torch.Tensor] = (),
        frame_window: int | None = None,
        stem: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[torch.Tensor]:
        """Predict the noise (or velocity) in a batch of latent videos.

        Args:
            sample: noisy latents [B, C, T, H, W].
            timestep: one training timestep, or one per row [B].
            encoder_hidden_states: text embedding [B, S, E], once per row.
            style: see `StyleAdapter.condition`; without it the text alone is attended to.
            image_mode: skip all temporal layers (not the same as a video of one frame).
            fps: frames per second that the motion is meant for, one or one per row [B]; for models with fps
                embedding only, whose default is `PUBLISHED_FPS`. It counts in image mode too.
            depth_features: one [N, C, H, W] for each of `unet_layout.depth_feature_places`, see `depth.py`; none: no depth.
            frame_window: of longer videos, temporal layers see so many frames at a time; see `long_video.py`.
            stem: from `stem` of the same latents; None: it is made here.

        Raises:
            ValueError: H or W is no multiple of `size_multiple`, depth features that do not fit, or an fps
                for a model without fps embedding.
        """
        batch, _, frames, height, width = sample.shape
        check_latent_size(self.size_multiple, height, width)
        if depth_features:
            check_depth_features(self.config, depth_features, batch * frames, height, width)
        if self.is_cache_enabled:
            self._follow_sampling(float(torch.as_tensor(timestep).max()), batch)
        embedding_BE = self._embed_time(timestep, batch, sample.device)
        embedding_BE = self._with_fps(embedding_BE, fps)
        time_NE = embedding_BE.repeat_interleave(frames, dim=0)
        window = _window(frame_window, frames)
        context = _Context(
            time_NE,
            encoder_hidden_states,
            style,
            frames,
            temporal=not image_mode,
            depth_NCHW=depth_features,
            window=window,
        )
        x = self._stem(sample, image_mode, window) if stem is None else stem
        x, skips = self._down(x, context)
        x = self._middle(x, context)
        x = self._up(x, skips, context)
        x = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        x = rearrange(x, "(b t) c h w -> b c t h w", b=batch)
        return UNet3DConditionOutput(sample=x) if return_dict else (x,)

    @apply_forward_hook  # an offloaded UNet comes to the device for it
    def stem(
        self, sample: torch.Tensor, image_mode: bool = False, frame_window: int | None = None
    ) -> torch.Tensor:
        """What `forward` does before it looks at the timestep, text and style, [N, C, H, W].

        Branches of guidance have it in common: at full size it is a twenty-fifth of a forward pass, at narrower
        ones, since its temporal layer stays 512 wide, up to half.

        Args: as in `forward`.
        """
        return self._stem(sample, image_mode, _window(frame_window, sample.shape[2]))

    def _stem(self, sample: torch.Tensor, image_mode: bool, window: int | None) -> torch.Tensor:
        x = self.conv_in(rearrange(sample, "b c t h w -> (b t) c h w"))
        if image_mode:
            return x
        frames = sample.shape[2]
        x = self._input_of_training(x)
        return self._recomputed(self._over_time, self.transformer_in, x, frames, window)

    def _embed_time(self, timestep: torch.Tensor | int, batch: int, device: torch.device) -> torch.Tensor:
        timestep_B = torch.as_tensor(timestep, device=device).expand(batch)
        return self.time_embedding(self.time_proj(timestep_B).to(self.dtype))

    def _with_fps(self, embedding_BE: torch.Tensor, fps: torch.Tensor | int | None) -> torch.Tensor:
        if not self.config.fps_cond:
            if fps is not None:
                given = torch.as_tensor(fps).tolist()
                raise ValueError(f"fps is {given}; this model has no fps embedding, allowed is None")
            return embedding_BE
        rate = PUBLISHED_FPS if fps is None else fps
        fps_B = torch.as_tensor(rate, device=embedding_BE.device).expand(len(embedding_BE))
        return embedding_BE + self.fps_embedding(self.time_proj(fps_B).to(self.dtype))

    @property
    def current_timestep(self) -> float:
        """Timestep of the last forward pass while a cache is enabled (diffusers' hooks ask for it)."""
        assert self._last_timestep is not None
        return self._last_timestep

    def _follow_sampling(self, timestep: float, batch: int) -> None:
        """Forget what another sampling run, or the same one with another number of branches, has cached."""
        if self._last_timestep is None or timestep >= self._last_timestep or batch != self._last_batch:
            self._reset_stateful_cache()
        self._last_timestep, self._last_batch = timestep, batch

    def _input_of_training(self, x: torch.Tensor) -> torch.Tensor:
        # torch 2.13 crashes (SIGSEGV, CPU) in the backward pass of a GroupNorm that trains on a channels-last
        # input without gradient: what the input's transformer gets when it trains and `conv_in` does not.
        trains = torch.is_grad_enabled() and self.transformer_in.norm.weight.requires_grad
        return x.detach().requires_grad_() if trains and not x.requires_grad else x

    def _down(self, x: torch.Tensor, context: _Context) -> tuple[torch.Tensor, list[torch.Tensor]]:
        skips, depth = [x], iter(context.depth_NCHW)
        for block in self.down_blocks:
            steps = [
                partial(self._layer, block, index, context=context) for index in range(len(block.resnets))
            ]
            for step in (*steps, *(block.downsamplers or ())):
                x = step(x)
                if context.depth_NCHW and len(skips) % DEPTH_EVERY == DEPTH_EVERY - 1:
                    x = x + next(depth).to(x.dtype)
                skips.append(x)
        return x, skips

    def _middle(self, x: torch.Tensor, context: _Context) -> torch.Tensor:
        return self._recomputed(self._run_middle, x, context)

    def _run_middle(self, x: torch.Tensor, context: _Context) -> torch.Tensor:
        x = self._residual(self.mid_block, 0, x, context)
        x = self._attend(self.mid_block, 0, x, context)
        return self._residual(self.mid_block, 1, x, context)

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
        return self._attend(block, index, self._residual(block, index, x, context), context)

    @staticmethod
    def _residual(block: Any, index: int, x: torch.Tensor, context: _Context) -> torch.Tensor:
        x = block.resnets[index](x, context.time_NE)
        if context.temporal and len(block.temp_convs):
            x = block.temp_convs[index](x, num_frames=context.frames)
        return x

    def _attend(self, block: Any, index: int, x: torch.Tensor, context: _Context) -> torch.Tensor:
        if not hasattr(block, "attentions"):
            return x
        x = block.attentions[index](
            x,
            encoder_hidden_states=context.text_BSE,
            cross_attention_kwargs={"style": context.style},
            return_dict=False,
        )[0]
        if not context.temporal:
            return x
        return self._over_time(block.temp_attentions[index], x, context.frames, context.window)

    @staticmethod
    def _over_time(transformer: Any, x: torch.Tensor, frames: int, window: int | None) -> torch.Tensor:
        def run(part: torch.Tensor, count: int) -> torch.Tensor:
            return transformer(part, num_frames=count, return_dict=False)[0]

        return run(x, frames) if window is None else over_windows(run, x, frames, window)


def _window(frame_window: int | None, frames: int) -> int | None:
    """None where one window holds all frames."""
    return frame_window if frame_window is not None and frame_window < frames else None
