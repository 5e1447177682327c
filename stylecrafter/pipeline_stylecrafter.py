"""StyleCrafterPipeline: prompts and style pictures to stylised videos or images.

Shapes: B rows, C latent channels, T frames, H, W pixels (of latents for latents).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, T2IAdapter
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from stylecrafter import model_directory
from stylecrafter.depth import DepthClip
from stylecrafter.stages import StyleCrafterStages
from stylecrafter.style_adapter import StyleAdapter, mix_styles
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import OpenClipTokenizer
from stylecrafter.unet import StyleCrafterUNet
from stylecrafter.validation import (
    Scale,
    depth_clips_of_rows,
    per_row,
    references_of_rows,
    weights_of_rows,
)

StyleImages = Image.Image | Sequence[Image.Image] | Sequence[Sequence[Image.Image]]
"""References of all rows (a picture or a list of pictures), or one list per row."""
OUTPUT_TYPES = ("np_uint8", "pil", "latent")
_TILE_LATENTS = 32  # 256 pixels, what the published VAE was trained on


@dataclass
class StyleCrafterOutput(BaseOutput):
    """Result of a pipeline call."""

    frames: np.ndarray | torch.Tensor | list[list[Image.Image]]
    """uint8 RGB [B, T, H, W, 3], latents [B, C, T, H, W], or pictures per row and frame."""


class StyleCrafterPipeline(StyleCrafterStages):
    """Text and style references to video (paper: arXiv 2312.00330).

    `__call__` does everything. A renderer of many rows calls the stages itself and keeps what repeats:
    `encode_prompt`, `encode_style`, `encode_depth`, `predict_fusion_scales`, `denoise`, `decode_latents`.

    Args:
        depth_adapter: for depth guidance; most models have none.
        round_image_tokens: round CLIP image tokens to float16 as the published script does. It moves
            style tokens by 2e-5 and video latents by 1e-5 (relative L2) and gains nothing, so it is off.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->depth_adapter->unet->vae"
    # The UNet reads weights of its norms (`StyleLayer`).
    _exclude_from_cpu_offload = ["style_adapter"]  # noqa: RUF012 - as below
    _optional_components = ["depth_adapter"]  # noqa: RUF012 - diffusers wants this name and type

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
        depth_adapter: T2IAdapter | None = None,
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
            depth_adapter=depth_adapter,
        )
        self.register_to_config(round_image_tokens=round_image_tokens)
        self.generation_config = dict(model_directory.PUBLISHED_GENERATION)
        # Where tiling is switched on: the VAE's own default would be tiles of 4 latent pixels.
        vae.tile_latent_min_size = _TILE_LATENTS
        vae.tile_sample_min_size = _TILE_LATENTS * self.vae_scale_factor

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

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        style_images: StyleImages | None = None,
        *,
        reference_weights: Sequence[float] | Sequence[Sequence[float]] | None = None,
        mix_images: StyleImages | None = None,
        mix_share: Scale = 0.5,
        depth: DepthClip | Sequence[DepthClip] | None = None,
        depth_normalisation: str = "clip",
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
            reference_weights: how much each reference counts, for all rows or one list per row; see
                `encode_style`.
            mix_images: references of a second style, which the first is mixed with.
            mix_share: of the second style, 0 to 1, one number or one per row; see `mix_styles`.
            depth: a depth clip for all rows (an array or a list of pictures), or a list with one per row.
            depth_normalisation: "clip" or "frame"; see `prepare_depth`.
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
        rows = len(prompts)
        settings = self._defaults(mode) | settings
        text = self.encode_prompt(prompts)
        uncond = self.encode_prompt([negative_prompt]).expand_as(text)
        style = scales = None
        if style_images is not None:
            style = self._styles(style_images, reference_weights, rows)
            if mix_images is not None:
                share_B = per_row(mix_share, rows, "mix_share", most=1.0)
                style = mix_styles(style, self._styles(mix_images, None, rows), share_B)
            scales = self.predict_fusion_scales(style, text)
        elif reference_weights is not None or mix_images is not None:
            raise ValueError("style_images are None; reference_weights and mix_images need them")
        if depth is not None:
            size = (settings["num_frames"], settings["height"], settings["width"])
            clips = depth_clips_of_rows(depth, rows)
            settings["depth_features"] = self.encode_depth(clips, *size, depth_normalisation)
        if generators is None:
            generators = [torch.Generator().manual_seed(seed + row) for row in range(rows)]
        latents = self.denoise(text, uncond, style, scales, generators=generators, mode=mode, **settings)
        return StyleCrafterOutput(frames=self._output(latents, output_type))

    def _styles(
        self,
        images: StyleImages,
        weights: Sequence[float] | Sequence[Sequence[float]] | None,
        rows: int,
    ) -> torch.Tensor:
        """Style tokens of every row [B, K, E]."""
        references = references_of_rows(images, rows)
        pairs = zip(references, weights_of_rows(weights, rows), strict=True)
        return torch.cat([self.encode_style(pictures, weight) for pictures, weight in pairs])

    def _defaults(self, mode: str) -> dict[str, Any]:
        """The model's generation settings that `denoise` takes."""
        settings = model_directory.generation_settings(self.generation_config, mode)
        return {name: settings[name] for name in _DENOISE_SETTINGS if name in settings}

    def _output(self, latents: torch.Tensor, output_type: str) -> Any:
        if output_type == "latent":
            return latents
        frames = self.decode_latents(latents)
        return frames if output_type == "np_uint8" else [[Image.fromarray(x) for x in row] for row in frames]


_DENOISE_SETTINGS = (
    "num_frames",
    "height",
    "width",
    "num_inference_steps",
    "text_guidance_scale",
    "style_guidance_scale",
    "style_scale",
    "conditioning_fps",
    "sampler",
    "eta",
    "guidance",
    "frame_window",
    "guidance_interval",
)
