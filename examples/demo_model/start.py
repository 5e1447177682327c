"""The demo model before its training: trained encoders, and a UNet and adapter with new weights from a seed.

python -m examples.demo_model.start --encoders examples/demo_model/weights/encoders --output outputs/demo_model/start
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler

from examples.encoders.components import load_clip
from stylecrafter import StyleCrafterPipeline
from stylecrafter.noise_schedule import PUBLISHED_SCHEDULE
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import ATTENTION_DOWN, ATTENTION_UP, StyleCrafterUNet

# 16x16, 8x8 and 4x4 latents, all with attention: 6.5M parameters. Shapes need the fine grid: on 8x8 latents, where one is
# 3.5 cells wide, they stayed blobs.
_CHANNELS = (32, 64, 128)
_HEAD_WIDTH = 16
# 4 channels a group on the finest grid. With the published 32 groups it would be 1: every channel loses its mean, and the
# loss is as far after 300 s as with 8 groups after 180.
_NORM_GROUPS = 8
_FRAMES = 8
_SIDE = 64


def build_start(encoders: Path, seed: int) -> StyleCrafterPipeline:
    """The published structure at a size that two CPU cores can train in hours, around trained encoders."""
    clip = load_clip(encoders)
    vae = AutoencoderKL.from_pretrained(encoders / "vae", torch_dtype=torch.float32)
    text_width = clip.text_encoder.config.hidden_size
    torch.manual_seed(seed)
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
        norm_num_groups=_NORM_GROUPS,
    )
    _silence_temporal_layers(unet)
    pipeline = StyleCrafterPipeline(
        unet=unet,
        vae=vae,
        **clip._asdict(),
        style_adapter=StyleAdapter(
            image_dim=clip.image_encoder.config.hidden_size,
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
    return DDIMScheduler(**PUBLISHED_SCHEDULE, prediction_type="v_prediction")


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
