"""The stages of a render, from prompts and pictures to frames; `StyleCrafterPipeline` strings them together.

Shapes: B rows, S text tokens, K style tokens, L style cross-attention layers, E channels of text and
style tokens, C latent channels, T frames, N = B*T (row major), H, W pixels (of latents for latents).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from stylecrafter.attention import StyleCondition
from stylecrafter.decoding import LatentDecoding
from stylecrafter.depth import DepthClip, depth_features, depth_size, prepare_depth
from stylecrafter.guidance import Guidance, GuidedModel
from stylecrafter.long_video import check_window, reschedule_noise
from stylecrafter.sampling import StepCallback, draw_noise, prepare_sampler, sample
from stylecrafter.style_adapter import concatenate_references
from stylecrafter.style_encoder import image_tokens
from stylecrafter.text_encoder import text_embedding
from stylecrafter.unet_layout import style_layer_groups
from stylecrafter.validation import (
    Scale,
    check_rows,
    check_sampling,
    check_size,
    check_weights,
    per_row,
    style_weights,
)


class StyleCrafterStages(LatentDecoding, DiffusionPipeline):
    """What a renderer of many rows calls itself, to keep what repeats; the components are the subclass's."""

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this, pixels (64 for the published model)."""
        return self.vae_scale_factor * self.unet.size_multiple

    @torch.no_grad()
    def encode_prompt(self, prompts: str | Sequence[str] | torch.Tensor) -> torch.Tensor:
        """Prompts, or token ids int64 [B, S], -> text embedding [B, S, E].

        The embedding is the penultimate layer's output after the final norm, padding included.
        """
        if isinstance(prompts, torch.Tensor):
            ids = prompts
        else:
            ids = self.tokenizer.prompt_ids([prompts] if isinstance(prompts, str) else prompts)
        return text_embedding(self.text_encoder, ids.to(self._execution_device))

    @torch.no_grad()
    def encode_style(
        self, references: Image.Image | Sequence[Image.Image], weights: Sequence[float] | None = None
    ) -> torch.Tensor:
        """All references of one row -> its style tokens [1, K, E], the same number for any references.

        Args:
            weights: one per reference, 0 or more: a reference of weight 2 counts as if it were there twice,
                one of weight 0 as if it were not there. None: all 1, as published.

        Raises:
            ValueError: no reference, or weights that do not fit.
        """
        references = [references] if isinstance(references, Image.Image) else list(references)
        if not references:
            raise ValueError("style references are empty; a row needs at least one, or no style at all")
        if weights is not None:
            check_weights(weights, len(references))
            references = [x for x, weight in zip(references, weights, strict=True) if weight]
            weights = [weight for weight in weights if weight]
        pixels = self.feature_extractor.style(references).to(self._execution_device)
        tokens = image_tokens(self.image_encoder, pixels, self.config.round_image_tokens)
        weights_BI = None
        if weights is not None and any(weight != 1 for weight in weights):
            weights_BI = torch.tensor(weights).repeat_interleave(tokens.shape[1])[None]
        return self.style_adapter.encode(concatenate_references(tokens.split(1)), weights_BI)

    @torch.no_grad()
    def predict_fusion_scales(self, style_BKE: torch.Tensor, text_BSE: torch.Tensor) -> torch.Tensor:
        """How much style each layer takes for this style and text [B, L, 1], in (-1, 1)."""
        return self.style_adapter.predict_scales(style_BKE, text_BSE)

    @torch.no_grad()
    def encode_depth(
        self,
        clips: Sequence[DepthClip],
        num_frames: int,
        height: int,
        width: int,
        normalisation: str = "clip",
    ) -> tuple[torch.Tensor, ...]:
        """One depth clip per row -> the features [N, C, H, W] that `denoise` takes.

        Args:
            clips, normalisation: see `prepare_depth`.
            num_frames, height, width: of the video, pixels.

        Raises:
            ValueError: the model has no depth adapter, or a clip is not one.
        """
        if self.depth_adapter is None:
            raise ValueError(
                "depth is given, but this model has no depth adapter (jobs.convert --depth-adapter)"
            )
        check_size(height, width, self.size_multiple)
        factor = self.vae_scale_factor
        size = depth_size(self.depth_adapter, self.unet.config, height // factor, width // factor)
        depth_BTHW = torch.cat([prepare_depth(clip, num_frames, *size, normalisation) for clip in clips])
        return depth_features(self.depth_adapter, depth_BTHW.to(self._execution_device))

    @torch.no_grad()
    def denoise(
        self,
        text_BSE: torch.Tensor,
        uncond_BSE: torch.Tensor,
        style_BKE: torch.Tensor | None = None,
        fusion_scales_BL1: torch.Tensor | None = None,
        *,
        generators: Sequence[torch.Generator],
        num_frames: int,
        height: int,
        width: int,
        num_inference_steps: int = 50,
        text_guidance_scale: Scale = 15.0,
        style_guidance_scale: Scale | None = 7.5,
        style_scale: Scale | Mapping[str, Scale] = 1.0,
        depth_features: Sequence[torch.Tensor] = (),
        conditioning_fps: Scale | None = None,
        sampler: str = "ddim",
        eta: float = 1.0,
        guidance: str = "published",
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        mode: str = "video",
        frame_window: int | None = None,
        batch_guidance: bool | None = None,
        callback: StepCallback | None = None,
    ) -> torch.Tensor:
        """Sample latents [B, C, T, H/f, W/f], float32, f = `vae_scale_factor`.

        Scales are one number for all rows or one per row.

        Args:
            text_BSE, uncond_BSE: embeddings of prompts and negative prompts, one per row each.
            style_BKE: style tokens; None renders the text alone with single guidance.
            fusion_scales_BL1: from `predict_fusion_scales`; None adds the style unscaled.
            generators: one CPU generator per row; the row's noise depends on nothing else.
            num_frames: frames; 1 in image mode.
            height, width: pixels, multiples of `size_multiple`.
            num_inference_steps: of DDIM, see `published_timesteps` for counts that do not divide 1000.
            text_guidance_scale: of text against nothing; in image mode of text and style together.
            style_guidance_scale: of style against text alone; None guides both by the text scale. In image
                mode the published code guides once, by the text scale; only the paper's form uses it there.
            style_scale: weight of the style attention, 0 or more; for all layers, or by group of layers
                (`style_layer_groups`), where a group left out has 1.
            depth_features: from `encode_depth`; every branch of the guidance gets them.
            conditioning_fps: rate that the motion is meant for, frames per second above 0; only for models
                with fps embedding, where None is `PUBLISHED_FPS`.
            sampler: see `prepare_sampler`.
            eta: of DDIM, 0 (deterministic) to 1.
            guidance: form of the dual guidance, "published" or "paper".
            guidance_interval: share of the steps at which guidance begins and ends; outside it only the
                fully conditioned branch runs (Kynkäänniemi et al. 2024).
            mode: "video", or "image" to skip the temporal layers.
            frame_window: for videos longer than those of the training: temporal layers see so many frames at a
                time, and noise repeats in another order (`long_video.py`); None: all frames at once.
            batch_guidance: run the guidance branches as one batch (more memory); None: on accelerators, and
                where the UNet caches (`SpeedOptions.attention_broadcast`), which one by one would undo.
            callback: see `ddim_sample`.

        Raises:
            ValueError: an argument out of range, or tensors that do not fit each other.
        """
        batch = len(text_BSE)
        check_rows(batch, uncond=uncond_BSE, style=style_BKE, generators=generators)
        check_sampling(height, width, self.size_multiple, num_frames, mode, eta, guidance_interval)
        check_window(frame_window, self.unet.is_cache_enabled)
        device = self._execution_device
        if style_BKE is None or (mode == "image" and guidance == "published"):
            style_guidance_scale = None
        if batch_guidance is None:
            batch_guidance = device.type != "cpu" or self.unet.is_cache_enabled
        model = GuidedModel(
            unet=self.unet,
            guidance=Guidance.of(text_guidance_scale, style_guidance_scale, guidance, batch),
            text_BSE=text_BSE,
            uncond_BSE=uncond_BSE,
            style=self._condition(style_BKE, fusion_scales_BL1, style_scale),
            depth_features=tuple(depth_features),
            fps_B=self._conditioning_fps(conditioning_fps, batch),
            image_mode=mode == "image",
            batch_branches=batch_guidance,
            frame_window=frame_window,
        )
        factor = self.vae_scale_factor
        shape_CTHW = (self.unet.config.in_channels, num_frames, height // factor, width // factor)
        noise_BCTHW = draw_noise(generators, shape_CTHW)
        if frame_window is not None:
            noise_BCTHW = reschedule_noise(noise_BCTHW, generators, frame_window)
        return sample(
            model,
            prepare_sampler(self.scheduler, sampler, num_inference_steps),
            noise_BCTHW.to(device),
            generators,
            eta=eta,
            guidance_interval=guidance_interval,
            callback=callback,
        )

    def _condition(
        self,
        style_BKE: torch.Tensor | None,
        fusion_scales_BL1: torch.Tensor | None,
        style_scale: Scale | Mapping[str, Scale],
    ) -> StyleCondition | None:
        if style_BKE is None:
            return None
        weights_BL = style_weights(style_scale, len(style_BKE), style_layer_groups(self.unet.config))
        return self.style_adapter.condition(style_BKE, fusion_scales_BL1, weights_BL.to(style_BKE.device))

    @staticmethod
    def _conditioning_fps(conditioning_fps: Scale | None, batch: int) -> torch.Tensor | None:
        if conditioning_fps is None:
            return None
        fps_B = per_row(conditioning_fps, batch, "conditioning_fps")
        if (fps_B <= 0).any():
            raise ValueError(f"conditioning_fps is {fps_B.tolist()}; allowed are numbers above 0")
        return fps_B
