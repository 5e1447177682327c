"""Pipelines without data: the architecture of a model directory, or the published one, on the meta device."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, T2IAdapter
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from stylecrafter.model_directory import load_generation_config
from stylecrafter.noise_schedule import PUBLISHED_SCHEDULE, ScaledDDIMScheduler
from stylecrafter.pipeline_stylecrafter import StyleCrafterPipeline
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import (
    CLIP_VOCABULARY_SIZE,
    PUBLISHED_MERGES,
    OpenClipTokenizer,
    tokenizer_from_merges,
)
from stylecrafter.unet import StyleCrafterUNet


def meta_pipeline(path: str | Path) -> StyleCrafterPipeline:
    """The model of a directory with shapes and no data; only its small JSON files are read.

    Raises:
        OSError: a component's config is missing.
    """
    folder = Path(path)
    schedule = DDIMScheduler.load_config(folder / "scheduler")
    scheduler_class = ScaledDDIMScheduler if "signal_scale" in schedule else DDIMScheduler
    depth = folder / "depth_adapter"
    with torch.device("meta"):
        pipeline = StyleCrafterPipeline(
            unet=StyleCrafterUNet.from_config(StyleCrafterUNet.load_config(folder / "unet")),
            vae=AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae")),
            text_encoder=CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(folder / "text_encoder")),
            image_encoder=CLIPVisionModelWithProjection(
                CLIPVisionConfig.from_pretrained(folder / "image_encoder")
            ),
            style_adapter=StyleAdapter.from_config(StyleAdapter.load_config(folder / "style_adapter")),
            tokenizer=OpenClipTokenizer.from_pretrained(folder / "tokenizer"),
            feature_extractor=StyleImageProcessor.from_pretrained(folder / "feature_extractor"),
            scheduler=scheduler_class.from_config(schedule),
            depth_adapter=T2IAdapter.from_config(T2IAdapter.load_config(depth)) if depth.is_dir() else None,
        )
    pipeline.generation_config = load_generation_config(folder)
    return pipeline


def published_meta_pipeline() -> StyleCrafterPipeline:
    """The published full-size model (FACTS, section 8: UNet 1,144,485,956 and adapter 111,188,161 parameters)."""
    with torch.device("meta"):
        return StyleCrafterPipeline(
            unet=StyleCrafterUNet(),
            vae=_vae(),
            text_encoder=CLIPTextModelWithProjection(_text_config()),
            image_encoder=CLIPVisionModelWithProjection(_vision_config()),
            style_adapter=StyleAdapter(),
            tokenizer=tokenizer_from_merges(PUBLISHED_MERGES, CLIP_VOCABULARY_SIZE),
            feature_extractor=StyleImageProcessor(),
            scheduler=DDIMScheduler(**PUBLISHED_SCHEDULE),
        )


def _vae() -> AutoencoderKL:
    """Stable Diffusion's kl-f8."""
    channels = (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.18215,
    )


def _text_config() -> CLIPTextConfig:
    """OpenCLIP's ViT-H/14 text tower."""
    return CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY_SIZE,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=1024,
        hidden_act="gelu",
        pad_token_id=0,
        bos_token_id=CLIP_VOCABULARY_SIZE - 2,
        eos_token_id=CLIP_VOCABULARY_SIZE - 1,
    )


def _vision_config() -> CLIPVisionConfig:
    """OpenCLIP's ViT-H/14 vision tower."""
    return CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        image_size=224,
        projection_dim=1024,
        hidden_act="gelu",
    )
