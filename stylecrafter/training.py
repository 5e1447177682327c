"""The model as a training stage sees it: targets, captions and references in, one loss per row out.

Shapes: B rows, T frames, H, W pixels (of latents for latents), N = B*T, C latent channels, S text tokens,
E channels of text and style tokens, L style cross-attention layers.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from stylecrafter.attention import StyleCondition
from stylecrafter.depth import depth_features, depth_size, prepare_depth
from stylecrafter.losses import (
    Draws,
    check_prediction_type,
    draw,
    loss_per_row,
    min_snr_weight,
    training_target,
    validation_draws,
)
from stylecrafter.parameter_groups import ADAPTER_GROUPS, GROUPS, GROUPS_OF_STAGE, ParameterGroup, group_of
from stylecrafter.pipeline_stylecrafter import StyleCrafterPipeline
from stylecrafter.style_encoder import image_tokens
from stylecrafter.text_encoder import in_text_embedding, text_embedding
from stylecrafter.training_options import STAGES, STYLE_STAGES, TrainingOptions

__all__ = [
    "STAGES",
    "Draws",
    "ParameterGroup",
    "TrainingModel",
    "TrainingOptions",
    "draw",
    "validation_draws",
]


class TrainingModel(nn.Module):
    """One stage of training around a pipeline's components, which it shares and does not copy.

    Stages:
        base: the whole UNet, from text alone. Images skip the temporal layers.
        style: the adapter alone (paper, stage 1). Images skip the temporal layers.
        temporal: the temporal transformers alone (paper, stage 2), with style where a reference is given.
        joint: adapter and temporal transformers together (an ablation of the paper).
        depth: the depth adapter alone, from text and depth (T2I-Adapter, Mou et al. 2023). Images skip the
            temporal layers.

    In the last two, images go *through* the temporal layers as clips of one frame. Skipped layers would get
    no gradient from them, and in the temporal stage nothing else trains: styled images are there
    to keep the temporal layers from undoing a frame's style while they learn motion from plain videos. (Over
    one frame, temporal queries and keys have no effect and get a gradient of zero.)

    Every batch gives every trainable parameter a gradient, of zero where it has no part in the loss.

    What a stage does not train is frozen, in eval mode, and shared with the pipeline: sampling from the
    pipeline between two steps shows the model as it is.

    Args:
        pipeline: on any device, meta included for counting.
        stage: one of `STAGES`.
        options: of the objective.

    Raises:
        ValueError: stage and options do not go together, or the scheduler's prediction type is unknown.
    """

    empty_ids_1S: torch.Tensor

    def __init__(self, pipeline: StyleCrafterPipeline, stage: str, options: TrainingOptions):
        super().__init__()
        options.check_stage(stage, pipeline.style_adapter.config.fusion)
        check_prediction_type(pipeline.scheduler)
        if stage == "depth" and pipeline.depth_adapter is None:
            raise ValueError("stage is 'depth', but the model has no depth adapter to train")
        self.stage = stage
        self.options = options
        self.scheduler = pipeline.scheduler
        self.unet = pipeline.unet
        self.vae = pipeline.vae
        self.text_encoder = pipeline.text_encoder
        self.image_encoder = pipeline.image_encoder
        self.style_adapter = pipeline.style_adapter
        self.depth_adapter = pipeline.depth_adapter if stage == "depth" else None
        self._vae_scale_factor = pipeline.vae_scale_factor
        self._round_image_tokens = pipeline.config.round_image_tokens
        self.register_buffer("empty_ids_1S", pipeline.tokenizer.prompt_ids([""]), persistent=False)
        if options.copy_text_projections:
            self.style_adapter.copy_text_projections(self.unet)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self._trains(name))
        self.train()

    # ---- Parameters ----

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What this stage trains, by its name here: `unet.*`, `style_adapter.*`, `text_encoder.*`."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every part that the model has, with its total and trainable number of parameters."""
        totals, trainable = dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)
        for name, parameter in self.named_parameters():
            totals[group_of(name)] += parameter.numel()
            trainable[group_of(name)] += parameter.numel() if parameter.requires_grad else 0
        return [ParameterGroup(name, totals[name], trainable[name]) for name in GROUPS if totals[name]]

    def sharding_units(self) -> list[nn.Module]:
        """The modules that FSDP may shard one by one; the rest belongs to the root.

        Only what every batch runs: workers gather a unit together, and one that skips it would leave the
        others waiting. So temporal layers are units only where images pass them, and the image encoder's only
        where every batch has references.
        """
        units = [*self.unet.spatial_transformers(), self.vae.encoder]
        units += self.text_encoder.text_model.encoder.layers
        if self.stage == "style":
            units += self.image_encoder.vision_model.encoder.layers
        if not self._skips_temporal_layers(frames=1):
            units += self.unet.temporal_transformers()
        return units

    def _trains(self, name: str) -> bool:
        component, _, rest = name.partition(".")
        if component == "text_encoder":
            # The last layer and the projection have no part in the embedding.
            return self.options.train_text_encoder and in_text_embedding(self.text_encoder, rest)
        return group_of(name) in GROUPS_OF_STAGE[self.stage]

    def train(self, mode: bool = True) -> TrainingModel:
        """Training mode for what trains; frozen parts stay in eval mode."""
        super().train(mode)
        for module in self.modules():
            # A module's parameters include those below it: only what is wholly frozen stands still.
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    # ---- Forward ----

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the latents of frames of this size in pixels, for `draw`."""
        factor = self._vae_scale_factor
        return self.unet.config.in_channels, frames, height // factor, width // factor

    def forward(
        self,
        target_BTHWC: torch.Tensor,
        token_ids_BS: torch.Tensor,
        reference_B3HW: torch.Tensor | None,
        draws: Draws,
        plain: bool = False,
        depth_BTHWC: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Loss of each row, float32 [B]; its mean is what to descend.

        Args:
            target_BTHWC: uint8 RGB frames; one frame is an image.
            token_ids_BS: captions, int64, from `tokenizer.prompt_ids`.
            reference_B3HW: references from `StyleImageProcessor.style`, one per row, or None without style.
            draws: from `draw`, for the same rows.
            plain: only the mean squared error, without weights or penalty, for validation.
            depth_BTHWC: uint8 depth of the targets, grey as RGB; the depth stage needs it, others have none.

        Raises:
            ValueError: a reference in the base stage, none in the style stage, or draws of another shape.
        """
        self._check(target_BTHWC, reference_B3HW, depth_BTHWC, draws)
        image_mode = self._skips_temporal_layers(target_BTHWC.shape[1])
        draws = draws.to(target_BTHWC.device)
        latents_BCTHW = self._encode_target(target_BTHWC, draws.posterior_BCTHW)
        text_BSE = self._encode_text(token_ids_BS, draws.drop_text_B)
        style, scales_BL1 = self._encode_style(reference_B3HW, text_BSE, draws.drop_style_B)
        noisy_BCTHW = self.scheduler.add_noise(latents_BCTHW, draws.noise_BCTHW, draws.timestep_B)
        prediction_BCTHW = self.unet(
            noisy_BCTHW.to(self.unet.dtype),
            draws.timestep_B,
            text_BSE,
            style,
            image_mode=image_mode,
            depth_features=self._encode_depth(depth_BTHWC, latents_BCTHW),
        ).sample
        target_BCTHW = training_target(self.scheduler, latents_BCTHW, draws.noise_BCTHW, draws.timestep_B)
        if plain:
            return loss_per_row(prediction_BCTHW, target_BCTHW)
        loss_B = loss_per_row(prediction_BCTHW, target_BCTHW, self._weight(draws))
        loss_B = loss_B + self._penalty(scales_BL1, draws.drop_style_B)
        return loss_B + self._nothing_of_unused(image_mode, styled=style is not None)

    def _check(
        self,
        target_BTHWC: torch.Tensor,
        reference_B3HW: torch.Tensor | None,
        depth_BTHWC: torch.Tensor | None,
        draws: Draws,
    ) -> None:
        if self.stage in ("base", "depth") and reference_B3HW is not None:
            raise ValueError(
                f"reference_B3HW is given in the {self.stage} stage; allowed is None (it has no style)"
            )
        if (depth_BTHWC is not None) != (self.stage == "depth"):
            given = "missing" if depth_BTHWC is None else "given"
            raise ValueError(
                f"depth_BTHWC is {given} in the {self.stage} stage; the depth stage alone has it"
            )
        if depth_BTHWC is not None and depth_BTHWC.shape != target_BTHWC.shape:
            raise ValueError(
                f"depth_BTHWC has shape {tuple(depth_BTHWC.shape)}; its targets have {tuple(target_BTHWC.shape)}"
            )
        if self.stage == "style" and reference_B3HW is None:
            raise ValueError("reference_B3HW is None in the style stage; every row needs a reference")
        batch, frames, height, width, _ = target_BTHWC.shape
        expected = (batch, *self.latent_shape(frames, height, width))
        for name in ("noise_BCTHW", "posterior_BCTHW"):
            if (shape := tuple(getattr(draws, name).shape)) != expected:
                raise ValueError(f"draws.{name} has shape {shape}; these targets need {expected}")

    def _skips_temporal_layers(self, frames: int) -> bool:
        return frames == 1 and self.stage in ("base", "style", "depth")

    @torch.no_grad()
    def _encode_target(self, target_BTHWC: torch.Tensor, posterior_BCTHW: torch.Tensor) -> torch.Tensor:
        """Latents as the UNet sees them, float32 [B, C, T, H, W]: a sample of the VAE's posterior, scaled."""
        frames_NCHW = rearrange(target_BTHWC, "b t h w c -> (b t) c h w").float() / 127.5 - 1
        noise_NCHW = rearrange(posterior_BCTHW, "b c t h w -> (b t) c h w")
        size = self.options.vae_chunk_frames
        latents = []
        for frames, noise in zip(frames_NCHW.split(size), noise_NCHW.split(size), strict=True):
            posterior = self.vae.encode(frames.to(self.vae.dtype)).latent_dist
            latents.append(posterior.mean.float() + posterior.std.float() * noise)
        latents_NCHW = torch.cat(latents) * self.vae.config.scaling_factor
        return rearrange(latents_NCHW, "(b t) c h w -> b c t h w", b=len(target_BTHWC))

    def _encode_text(self, token_ids_BS: torch.Tensor, drop_B: torch.Tensor) -> torch.Tensor:
        ids_BS = torch.where(drop_B[:, None], self.empty_ids_1S, token_ids_BS)
        with torch.set_grad_enabled(self.options.train_text_encoder and torch.is_grad_enabled()):
            return text_embedding(self.text_encoder, ids_BS)

    def _encode_style(
        self, reference_B3HW: torch.Tensor | None, text_BSE: torch.Tensor, drop_B: torch.Tensor
    ) -> tuple[StyleCondition | None, torch.Tensor | None]:
        """Style condition and fusion scales; a dropped row has gate 0, which is text alone."""
        if reference_B3HW is None:
            return None, None
        with torch.no_grad():
            tokens_BIC = image_tokens(self.image_encoder, reference_B3HW, self._round_image_tokens)
        with torch.set_grad_enabled(self.stage in STYLE_STAGES and torch.is_grad_enabled()):
            style_BKE = self.style_adapter.encode(tokens_BIC)
            scales_BL1 = self.style_adapter.predict_scales(style_BKE, text_BSE)
            return self.style_adapter.condition(style_BKE, scales_BL1, (~drop_B).float()), scales_BL1

    def _encode_depth(
        self, depth_BTHWC: torch.Tensor | None, latents_BCTHW: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        if self.depth_adapter is None or depth_BTHWC is None:
            return ()
        frames, height, width = latents_BCTHW.shape[2:]
        size = depth_size(self.depth_adapter, self.unet.config, height, width)
        depth_BTHW = torch.cat([prepare_depth(clip, frames, *size) for clip in depth_BTHWC.cpu()])
        return depth_features(self.depth_adapter, depth_BTHW)

    def _weight(self, draws: Draws) -> torch.Tensor | None:
        gamma = self.options.min_snr_gamma
        return None if gamma is None else min_snr_weight(self.scheduler, draws.timestep_B, gamma)

    def _penalty(self, scales_BL1: torch.Tensor | None, drop_B: torch.Tensor) -> torch.Tensor | float:
        """Mean square of a row's fusion scales (tanh, so at most 1), weighted; 0 for rows without style.

        It draws gates towards 1, the fixed fusion: early in a short training the scales otherwise run to
        their upper end, where tanh hardly learns any more and style drowns content.
        """
        if scales_BL1 is None or not self.options.scale_penalty:
            return 0.0
        return self.options.scale_penalty * scales_BL1.float().square().mean(dim=(1, 2)) * ~drop_B

    def _nothing_of_unused(self, image_mode: bool, styled: bool) -> torch.Tensor | float:
        """Zero, with a gradient of zero for the trainable parameters that this batch has no use for.

        Workers reduce gradients together and may hold batches of different kinds: a parameter without
        gradient on one of them stops DDP and breaks FSDP. With zeros the number of workers makes no difference.
        """
        unused = {"unet.temporal"} if image_mode else set()
        unused |= set() if styled else set(ADAPTER_GROUPS)
        parameters = [p for name, p in self.trainable_parameters().items() if group_of(name) in unused]
        return 0.0 * torch.stack([p.sum() for p in parameters]).sum() if parameters else 0.0
