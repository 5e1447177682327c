"""The demo model before its training: trained encoders, and a UNet and adapter with new weights from a seed.

python -m examples.demo_model.start --encoders examples/demo_model/weights/encoders --output outputs/demo_model/start
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

from stylecrafter import StyleCrafterPipeline
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import OpenClipTokenizer
from stylecrafter.unet import ATTENTION_DOWN, ATTENTION_UP, StyleCrafterUNet

# 8x8 and 4x4 latents, both with attention: 6.4M parameters, about 0.45 s of one core per 4 clips and step.
_CHANNELS = (64, 128)
_HEAD_WIDTH = 16
_FRAMES = 8
_SIDE = 64


def build_start(encoders: Path, seed: int) -> StyleCrafterPipeline:
    """The published structure at a size that two CPU cores can train in hours, around trained encoders."""
    tokenizer = OpenClipTokenizer.from_pretrained(encoders / "tokenizer")
    vae = AutoencoderKL.from_pretrained(encoders / "vae")
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(encoders / "image_encoder")
    torch.manual_seed(seed)
    text_encoder = _text_encoder(encoders, tokenizer)
    text_width = text_encoder.config.hidden_size
    unet = StyleCrafterUNet(
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=_CHANNELS,
        layers_per_block=1,
        down_block_types=(ATTENTION_DOWN,) * len(_CHANNELS),
        up_block_types=(ATTENTION_UP,) * len(_CHANNELS),
        cross_attention_dim=text_width,
        attention_head_dim=_HEAD_WIDTH,
        temporal_length=_FRAMES,
    )
    _silence_temporal_layers(unet)
    pipeline = StyleCrafterPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        feature_extractor=StyleImageProcessor.from_pretrained(encoders / "feature_extractor"),
        style_adapter=StyleAdapter(
            image_dim=image_encoder.config.hidden_size,
            context_dim=text_width,
            num_layers=2,
            num_heads=4,
            scale_num_heads=4,
            layer_channels=unet.style_layer_channels,
        ),
        scheduler=_scheduler(),
    )
    pipeline.generation_config |= {
        "trained": False,
        "height": _SIDE,
        "width": _SIDE,
        "num_frames": _FRAMES,
        "fps": 8,
        "num_inference_steps": 25,
        "text_guidance_scale": 4.0,
        "style_guidance_scale": 2.0,
        "image": {
            "height": _SIDE,
            "width": _SIDE,
            "num_frames": 1,
            "text_guidance_scale": 4.0,
        },
    }
    return pipeline


@torch.no_grad()
def _silence_temporal_layers(unet: StyleCrafterUNet) -> None:
    """New temporal layers add nothing, as in the published model before its training.

    So pictures can be learned first, which cost a fraction of clips, and clips begin with what was learned.
    """
    for transformer in unet.temporal_transformers():
        transformer.proj_out.weight.zero_()
        transformer.proj_out.bias.zero_()


def _scheduler() -> DDIMScheduler:
    """The published noise schedule; the velocity is predicted, which learns motion many times faster here."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction",
    )


def _text_encoder(encoders: Path, tokenizer: OpenClipTokenizer) -> CLIPTextModelWithProjection:
    """CLIP's text tower; the base stage goes on training it."""
    config = CLIPTextConfig.from_pretrained(encoders / "text_encoder")
    assert config.max_position_embeddings >= tokenizer.prompt_length
    return CLIPTextModelWithProjection.from_pretrained(encoders / "text_encoder")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", type=Path, required=True, help="folder with the trained encoders")
    parser.add_argument("--output", type=Path, required=True, help="model directory to write")
    parser.add_argument("--seed", type=int, default=0, help="of the new weights (default: 0)")
    given = parser.parse_args()
    build_start(given.encoders, given.seed).save_pretrained(given.output)
    print(f"start of the demo model: {given.output}")


if __name__ == "__main__":
    main()
