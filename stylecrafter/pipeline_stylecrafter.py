"""StyleCrafterPipeline: prompts and style pictures to stylised videos or images.

Shapes: B rows, S text tokens, K style tokens, L style cross-attention layers, E channels of text and
style tokens, C latent channels, T frames, H, W pixels (of latents for latents).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput
from einops import rearrange
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from stylecrafter import model_directory
from stylecrafter.guidance import Guidance, GuidedModel
from stylecrafter.sampling import StepCallback, ddim_sample, draw_noise, prepare_scheduler
from stylecrafter.style_adapter import StyleAdapter, concatenate_references
from stylecrafter.style_encoder import StyleImageProcessor, image_tokens
from stylecrafter.text_encoder import text_embedding
from stylecrafter.tokenizer import OpenClipTokenizer
from stylecrafter.unet import StyleCrafterUNet
from stylecrafter.validation import (
    check_eta,
    check_frames,
    check_rows,
    check_size,
    per_row,
    references_of_rows,
)

Scale = float | Sequence[float] | torch.Tensor
OUTPUT_TYPES = ("np_uint8", "pil", "latent")


@dataclass
class StyleCrafterOutput(BaseOutput):
    """Result of a pipeline call."""

    frames: np.ndarray | torch.Tensor | list[list[Image.Image]]
    """uint8 RGB [B, T, H, W, 3], latents [B, C, T, H, W], or pictures per row and frame."""


class StyleCrafterPipeline(DiffusionPipeline):
    """Text and style references to video (paper: arXiv 2312.00330).

    `__call__` does everything. A renderer of many rows calls the stages itself and keeps what repeats:
    `encode_prompt`, `encode_style`, `predict_fusion_scales`, `denoise`, `decode_latents`.

    Args:
        round_image_tokens: round CLIP image tokens to float16 as the published script does. It moves
            style tokens by 2e-5 and video latents by 1e-5 (relative L2) and gains nothing, so it is off.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->style_adapter->unet->vae"

    def __init__(
        self,
        unet: StyleCrafterUNet,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: OpenClipTokenizer,
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: StyleImageProcessor,
        style_adapter: StyleAdapter,
        scheduler: DDIMScheduler,
        round_image_tokens: bool = False,
    ):
        super().__init__()
        self.register_modules(
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
            style_adapter=style_adapter,
            scheduler=scheduler,
        )
        self.register_to_config(round_image_tokens=round_image_tokens)
        self.generation_config = dict(model_directory.PUBLISHED_GENERATION)

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> StyleCrafterPipeline:
        """Load a local model directory; keyword arguments as in diffusers (`dtype`, components).

        Raises:
            ValueError: there is no such directory (nothing is ever fetched from the network).
        """
        if not Path(path).is_dir():
            raise ValueError(f"path is {str(path)!r}; it must be a local model directory")
        pipeline = super().from_pretrained(path, **kwargs)
        pipeline.generation_config = model_directory.load_generation_config(path)
        return pipeline

    def save_pretrained(self, path: str | Path, **kwargs: Any) -> None:
        """Write the model directory with generation settings, model card and fingerprint."""
        super().save_pretrained(path, **kwargs)
        model_directory.write_model_files(path, self.generation_config)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent pixel along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

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
    def encode_style(self, references: Image.Image | Sequence[Image.Image]) -> torch.Tensor:
        """All references of one row -> its style tokens [1, K, E], the same number for any references.

        Raises:
            ValueError: no reference.
        """
        references = [references] if isinstance(references, Image.Image) else list(references)
        if not references:
            raise ValueError("style references are empty; a row needs at least one, or no style at all")
        pixels = self.feature_extractor.style(references).to(self._execution_device)
        tokens = image_tokens(self.image_encoder, pixels, self.config.round_image_tokens)
        return self.style_adapter.encode(concatenate_references(tokens.split(1)))

    @torch.no_grad()
    def predict_fusion_scales(self, style_BKE: torch.Tensor, text_BSE: torch.Tensor) -> torch.Tensor:
        """How much style each layer takes for this style and text [B, L, 1], in (-1, 1)."""
        return self.style_adapter.predict_scales(style_BKE, text_BSE)

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
        style_scale: Scale = 1.0,
        eta: float = 1.0,
        guidance: str = "published",
        mode: str = "video",
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
            num_inference_steps: see `published_timesteps` for counts that do not divide 1000.
            text_guidance_scale: of text against nothing; in image mode of text and style together.
            style_guidance_scale: of style against text alone; None guides both by the text scale.
                Image mode has the published single guidance and does not use it.
            style_scale: weight of the style attention, 0 or more.
            eta: 0 (deterministic) to 1.
            guidance: form of the dual guidance, "published" or "paper".
            mode: "video", or "image" to skip the temporal layers.
            batch_guidance: run the guidance branches as one batch (more memory); None: on accelerators.
            callback: see `ddim_sample`.

        Raises:
            ValueError: an argument out of range, or tensors that do not fit each other.
        """
        batch = len(text_BSE)
        check_rows(batch, uncond=uncond_BSE, style=style_BKE, generators=generators)
        check_size(height, width, self.size_multiple)
        check_frames(num_frames, mode)
        check_eta(eta)
        device = self._execution_device
        if style_BKE is None or mode == "image":
            style_guidance_scale = None
        model = GuidedModel(
            unet=self.unet,
            guidance=Guidance(
                per_row(text_guidance_scale, batch, "text_guidance_scale"),
                None
                if style_guidance_scale is None
                else per_row(style_guidance_scale, batch, "style_guidance_scale"),
                guidance,
            ),
            text_BSE=text_BSE,
            uncond_BSE=uncond_BSE,
            style=self._condition(style_BKE, fusion_scales_BL1, style_scale),
            image_mode=mode == "image",
            batch_branches=device.type != "cpu" if batch_guidance is None else batch_guidance,
        )
        factor = self.vae_scale_factor
        shape_CTHW = (self.unet.config.in_channels, num_frames, height // factor, width // factor)
        latents = draw_noise(generators, shape_CTHW).to(device)
        scheduler = prepare_scheduler(self.scheduler, num_inference_steps)
        return ddim_sample(model, scheduler, latents, generators, eta, callback)

    @torch.no_grad()
    def decode_latents_to_float(self, latents_BCTHW: torch.Tensor, chunk_frames: int = 8) -> torch.Tensor:
        """Latents -> frames [B, 3, T, H, W], nominally in [-1, 1] but not clamped, float32.

        Args:
            chunk_frames: frames decoded together, at least 1.
        """
        batch = len(latents_BCTHW)
        frames_NCHW = rearrange(latents_BCTHW, "b c t h w -> (b t) c h w").to(self.vae.dtype)
        frames_NCHW = frames_NCHW / self.vae.config.scaling_factor
        decoded = [self.vae.decode(chunk).sample.float() for chunk in frames_NCHW.split(chunk_frames)]
        return rearrange(torch.cat(decoded), "(b t) c h w -> b c t h w", b=batch)

    def decode_latents(self, latents_BCTHW: torch.Tensor, chunk_frames: int = 8) -> np.ndarray:
        """Latents -> RGB frames uint8 [B, T, H, W, 3]; values are truncated, not rounded, as published."""
        return self.frames_to_uint8(self.decode_latents_to_float(latents_BCTHW, chunk_frames))

    @staticmethod
    def frames_to_uint8(frames_BCTHW: torch.Tensor) -> np.ndarray:
        """Frames in [-1, 1] (clamped) -> RGB uint8 [B, T, H, W, 3], truncated as published."""
        frames_uint8 = ((frames_BCTHW.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
        return rearrange(frames_uint8, "b c t h w -> b t h w c").cpu().numpy()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        style_images: Image.Image | Sequence[Image.Image] | Sequence[Sequence[Image.Image]] | None = None,
        *,
        negative_prompt: str = "",
        seed: int = 0,
        generators: Sequence[torch.Generator] | None = None,
        mode: str = "video",
        output_type: str = "np_uint8",
        **settings: Any,
    ) -> StyleCrafterOutput:
        """Render one video (or image) per prompt.

        Args:
            prompt: one prompt per row.
            style_images: references of all rows (a picture or a list of pictures), or one list per row.
            negative_prompt: text of the unconditional branch.
            seed: row i uses `seed + i`; `generators` (CPU, one per row) take its place.
            mode: "video" or "image".
            output_type: "np_uint8", "pil" or "latent".
            settings: any keyword of `denoise`; defaults are the model's generation settings.

        Raises:
            ValueError: an argument out of range.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}; allowed are {', '.join(OUTPUT_TYPES)}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        text = self.encode_prompt(prompts)
        uncond = self.encode_prompt([negative_prompt]).expand_as(text)
        style = scales = None
        if style_images is not None:
            style = torch.cat(
                [self.encode_style(row) for row in references_of_rows(style_images, len(prompts))]
            )
            scales = self.predict_fusion_scales(style, text)
        if generators is None:
            generators = [torch.Generator().manual_seed(seed + row) for row in range(len(prompts))]
        settings = self._defaults(mode) | settings
        latents = self.denoise(text, uncond, style, scales, generators=generators, mode=mode, **settings)
        return StyleCrafterOutput(frames=self._output(latents, output_type))

    def _defaults(self, mode: str) -> dict[str, Any]:
        """The model's generation settings that `denoise` takes."""
        settings = model_directory.generation_settings(self.generation_config, mode)
        return {name: settings[name] for name in _DENOISE_SETTINGS if name in settings}

    def _output(self, latents: torch.Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return latents
        frames = self.decode_latents(latents)
        return frames if output_type == "np_uint8" else [[Image.fromarray(x) for x in row] for row in frames]

    def _condition(
        self, style: torch.Tensor | None, fusion_scales: torch.Tensor | None, style_scale: Scale
    ) -> Any:
        if style is None:
            return None
        return self.style_adapter.condition(
            style, fusion_scales, per_row(style_scale, len(style), "style_scale").to(style.device)
        )


_DENOISE_SETTINGS = (
    "num_frames",
    "height",
    "width",
    "num_inference_steps",
    "text_guidance_scale",
    "style_guidance_scale",
    "style_scale",
    "eta",
    "guidance",
)
