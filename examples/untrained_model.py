"""A small model of the real architecture with random weights: it proves the machinery, not the pictures.

python -m examples.untrained_model outputs/demo/model
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from stylecrafter import StyleCrafterPipeline
from stylecrafter.noise_schedule import PUBLISHED_SCHEDULE
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import PUBLISHED_MERGES, tokenizer_from_merges
from stylecrafter.unet import StyleCrafterUNet

_VOCABULARY = 4_096
_TEXT_WIDTH = 64
_IMAGE_WIDTH = 96
_PROJECTION = 48


def build_untrained_pipeline(
    seed: int, channels: tuple[int, ...] = (32, 64, 128, 128), layers_per_block: int = 2
) -> StyleCrafterPipeline:
    """A pipeline with the published structure, narrow, its weights drawn from `seed`.

    Args:
        channels: UNet widths per level; every level but the last has attention.
    """
    torch.manual_seed(seed)
    unet = _unet(channels, layers_per_block)
    adapter = StyleAdapter(
        image_dim=_IMAGE_WIDTH,
        context_dim=_TEXT_WIDTH,
        num_layers=2,
        layer_channels=unet.style_layer_channels,
    )
    pipeline = StyleCrafterPipeline(
        unet=unet,
        vae=_autoencoder(),
        text_encoder=_text_encoder(),
        tokenizer=tokenizer_from_merges(PUBLISHED_MERGES, _VOCABULARY),
        image_encoder=_image_encoder(),
        feature_extractor=StyleImageProcessor(),
        style_adapter=adapter,
        scheduler=DDIMScheduler(**PUBLISHED_SCHEDULE),
    )
    pipeline.generation_config |= {
        "trained": False,
        "height": 128,
        "width": 192,
        "num_frames": 8,
        "num_inference_steps": 5,
    }
    for component in (unet, adapter, pipeline.vae, pipeline.text_encoder, pipeline.image_encoder):
        component.eval()
    return pipeline


def _unet(channels: tuple[int, ...], layers_per_block: int) -> StyleCrafterUNet:
    attending = len(channels) - 1
    return StyleCrafterUNet(
        block_out_channels=channels,
        layers_per_block=layers_per_block,
        down_block_types=("CrossAttnDownBlock3D",) * attending + ("DownBlock3D",),
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * attending,
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=16,
    )


def _autoencoder() -> AutoencoderKL:
    channels = (32, 64, 64, 64)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=0.18215,
    )


def _text_encoder() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=_VOCABULARY,
            hidden_size=_TEXT_WIDTH,
            intermediate_size=4 * _TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=_PROJECTION,
            hidden_act="gelu",
            bos_token_id=_VOCABULARY - 2,
            eos_token_id=_VOCABULARY - 1,
            pad_token_id=0,
        )
    )


def _image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_IMAGE_WIDTH,
            intermediate_size=4 * _IMAGE_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            patch_size=32,
            projection_dim=_PROJECTION,
            hidden_act="gelu",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="model directory to write")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    arguments = parser.parse_args()
    build_untrained_pipeline(arguments.seed).save_pretrained(arguments.output)
    print(f"untrained model: {arguments.output}")


if __name__ == "__main__":
    main()
