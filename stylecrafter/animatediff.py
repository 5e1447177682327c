"""A second engine: AnimateDiff (Guo et al. 2023) with an IP-Adapter (Ye et al. 2023), for comparison on the same rows.

The networks, the adapter's layers and their loading are diffusers'. Ours are the stages, so that a renderer
treats it as it treats StyleCrafter: noise from each row's own generator, scales per row, three branches of guidance.

Shapes: B rows, S text tokens, E channels of text, R references, D channels of a picture's embedding, C latent
channels, T frames, H, W pixels (of latents for latents).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNetMotionModel
from diffusers.loaders import IPAdapterMixin
from diffusers.models.embeddings import ImageProjection
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from stylecrafter import model_directory
from stylecrafter.animatediff_guidance import GuidedMotionModel
from stylecrafter.decoding import LatentDecoding
from stylecrafter.guidance import Guidance
from stylecrafter.sampling import Sampler, StepCallback, draw_noise, prepare_sampler, sample
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.validation import (
    Scale,
    check_rows,
    check_sampling,
    check_weights,
    per_row,
)

ENGINE = "animatediff_ip_adapter"
IP_ADAPTER_FOLDER = "ip_adapter"
IP_ADAPTER_FILE = "ip_adapter.safetensors"

GENERATION: dict[str, Any] = {
    "engine": ENGINE,
    "trained": True,
    "height": 512,
    "width": 512,
    "num_frames": 16,
    "fps": 8,
    "num_inference_steps": 25,
    "text_guidance_scale": 7.5,
    "style_guidance_scale": 7.5,
    "style_scale": 1.0,
    "eta": 0.0,
    "guidance": "paper",
}
"""What most people use. Equal scales in the paper's form are one guidance for text and picture together."""


class AnimateDiffIPAdapterPipeline(LatentDecoding, DiffusionPipeline, IPAdapterMixin):
    """AnimateDiff with an IP-Adapter behind the stages of `StyleCrafterStages`.

    Several references become one: the weighted mean of their embeddings, as the adapter was trained on one picture.
    What StyleCrafter has and this does not (depth, image mode, fusion scales, groups of layers, an fps embedding) is
    refused by name.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNetMotionModel,
        scheduler: DDIMScheduler,
        feature_extractor: StyleImageProcessor,
        image_encoder: CLIPVisionModelWithProjection,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )
        self.generation_config = dict(GENERATION)

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> AnimateDiffIPAdapterPipeline:
        """Load a local model directory, as `animatediff_convert.assemble` makes it; `kwargs` as in diffusers.

        Raises:
            ValueError: there is no such directory (nothing is ever fetched from the network).
        """
        if not (Path(path) / IP_ADAPTER_FOLDER / IP_ADAPTER_FILE).is_file():
            raise ValueError(
                f"path is {str(path)!r}; it must be a local model directory with {IP_ADAPTER_FILE}"
            )
        pipeline = super().from_pretrained(path, **kwargs)
        pipeline.load_ip_adapter(
            str(path),
            subfolder=IP_ADAPTER_FOLDER,
            weight_name=IP_ADAPTER_FILE,
            image_encoder_folder=None,
            local_files_only=True,
            low_cpu_mem_usage=False,  # saves nothing with a file of this size, and would want accelerate
        )
        pipeline.generation_config = model_directory.load_generation_config(path)
        return pipeline

    def save_pretrained(self, path: str | Path, **kwargs: Any) -> NoReturn:
        """Not possible once the adapter is in the UNet: its saved config cannot say so. Copy the directory.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the adapter is merged into the UNet, which cannot be saved; copy the model directory"
        )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this, pixels."""
        return int(self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode_prompt(self, prompts: str | Sequence[str]) -> torch.Tensor:
        """Prompts -> text embedding [B, S, E]: the text tower's last layer after its norm, padding included."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        length = self.text_encoder.config.max_position_embeddings
        ids_BS = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids_BS.to(self._execution_device))[0]

    @torch.no_grad()
    def encode_style(
        self, references: Image.Image | Sequence[Image.Image], weights: Sequence[float] | None = None
    ) -> torch.Tensor:
        """All references of one row -> their mean embedding [1, 1, D], or [1, 1, P, D] for P tokens a picture.

        Args:
            weights: one per reference, 0 or more; None: all 1.

        Raises:
            ValueError: no reference, or weights that do not fit.
        """
        references = [references] if isinstance(references, Image.Image) else list(references)
        if not references:
            raise ValueError("style references are empty; a row needs at least one, or no style at all")
        weights = [1.0] * len(references) if weights is None else weights
        check_weights(weights, len(references))
        embeddings = self._embed(self.feature_extractor.clip(references))
        weights_R = torch.tensor(weights, dtype=embeddings.dtype, device=embeddings.device)
        return torch.tensordot(weights_R / weights_R.sum(), embeddings, dims=1)[None, None]

    def predict_fusion_scales(self, style: torch.Tensor, text_BSE: torch.Tensor) -> None:
        """None: this engine adds its style unscaled."""

    def encode_depth(self, *_: Any) -> NoReturn:
        """Not possible with this engine.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"engine {ENGINE!r} has no depth guidance")

    @torch.no_grad()
    def denoise(
        self,
        text_BSE: torch.Tensor,
        uncond_BSE: torch.Tensor,
        style: torch.Tensor | None = None,
        fusion_scales_BL1: None = None,
        *,
        generators: Sequence[torch.Generator],
        num_frames: int,
        height: int,
        width: int,
        num_inference_steps: int = 25,
        text_guidance_scale: Scale = 7.5,
        style_guidance_scale: Scale | None = 7.5,
        style_scale: Scale | Mapping[str, Scale] = 1.0,
        depth_features: Sequence[torch.Tensor] = (),
        conditioning_fps: Scale | None = None,
        sampler: str = "ddim",
        eta: float = 0.0,
        guidance: str = "paper",
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        mode: str = "video",
        batch_guidance: bool | None = None,
        callback: StepCallback | None = None,
    ) -> torch.Tensor:
        """Sample latents [B, C, T, H/f, W/f], float32; arguments as in `StyleCrafterStages.denoise`.

        `sampler` "ddim" has the timesteps of the model directory's scheduler. Rows of different style scales run
        one scale after another: the adapter's layers know one at a time.

        Raises:
            ValueError: an argument out of range, or one that this engine does not have.
        """
        batch = len(text_BSE)
        if isinstance(style_scale, Mapping):
            raise ValueError(f"style_scale is {style_scale}; engine {ENGINE!r} has no groups of layers")
        _refuse(depth_features, conditioning_fps, mode)
        check_rows(batch, uncond=uncond_BSE, style=style, generators=generators)
        check_sampling(height, width, self.size_multiple, num_frames, mode, eta, guidance_interval)
        factor = self.vae_scale_factor
        shape_CTHW = (self.unet.config.in_channels, num_frames, height // factor, width // factor)
        noise_BCTHW = draw_noise(generators, shape_CTHW).to(self._execution_device)
        if batch_guidance is None:
            batch_guidance = self._execution_device.type != "cpu"
        style_B = per_row(style_scale, batch, "style_scale") if style is not None else torch.zeros(batch)
        scales = _guidance(
            text_guidance_scale, style_guidance_scale if style is not None else None, guidance, batch
        )
        no_style = self._no_style(batch)
        style = no_style if style is None else style
        latents_BCTHW = torch.empty_like(noise_BCTHW)
        for scale in style_B.unique().tolist():
            rows = (style_B == scale).nonzero().flatten().tolist()
            self.set_ip_adapter_scale(scale)
            model = GuidedMotionModel(
                unet=self.unet,
                guidance=scales.of_rows(rows),
                text_BSE=text_BSE[rows],
                uncond_BSE=uncond_BSE[rows],
                style=style[rows],
                no_style=no_style[rows],
                batch_branches=batch_guidance,
            )
            latents_BCTHW[rows] = sample(
                model,
                self._sampler(sampler, num_inference_steps),
                noise_BCTHW[rows],
                [generators[row] for row in rows],
                eta=eta,
                guidance_interval=guidance_interval,
                callback=callback,
            )
        return latents_BCTHW

    def _sampler(self, name: str, num_inference_steps: int) -> Sampler:
        if name != "ddim":
            return prepare_sampler(self.scheduler, name, num_inference_steps)
        fresh = type(self.scheduler).from_config(self.scheduler.config)
        fresh.set_timesteps(num_inference_steps)
        return Sampler(name, fresh)

    @property
    def _reads_one_embedding(self) -> bool:
        """Whether the adapter's projection takes a picture's embedding, not its tokens."""
        return isinstance(self.unet.encoder_hid_proj.image_projection_layers[0], ImageProjection)

    def _embed(self, pixels_R3HW: torch.Tensor) -> torch.Tensor:
        """What the adapter's projection takes: [R, D], or [R, P, D] for one that reads all tokens."""
        pixels_R3HW = pixels_R3HW.to(self._execution_device, self.image_encoder.dtype)
        if self._reads_one_embedding:
            return self.image_encoder(pixels_R3HW).image_embeds
        return self.image_encoder(pixels_R3HW, output_hidden_states=True).hidden_states[-2]

    def _no_style(self, batch: int) -> torch.Tensor:
        """What the adapter was trained with where the picture was dropped, [B, 1, D] or [B, 1, P, D]."""
        config = self.image_encoder.config
        if self._reads_one_embedding:
            return torch.zeros(
                batch, 1, config.projection_dim, dtype=self.image_encoder.dtype, device=self._execution_device
            )
        embedding = self._embed(torch.zeros(1, 3, config.image_size, config.image_size))[None]
        return embedding.expand(batch, *embedding.shape[1:])


def _guidance(text_scale: Scale, style_scale: Scale | None, form: str, batch: int) -> Guidance:
    found = Guidance.of(text_scale, style_scale, form, batch)
    same = found.style_scale_B is not None and torch.equal(found.style_scale_B, found.text_scale_B)
    # Equal scales in the paper's form are one guidance, with a branch less.
    return Guidance(found.text_scale_B, None, form) if form == "paper" and same else found


def _refuse(depth_features: Sequence[torch.Tensor], conditioning_fps: Scale | None, mode: str) -> None:
    """What StyleCrafter has and this engine does not."""
    missing = {
        "depth guidance": bool(depth_features),
        "conditioning_fps": conditioning_fps is not None,
        "mode 'image'": mode == "image",
    }
    if asked := [name for name, is_asked in missing.items() if is_asked]:
        raise ValueError(f"engine {ENGINE!r} has no {', '.join(asked)}")
