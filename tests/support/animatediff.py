"""The parts of a tiny AnimateDiff with IP-Adapter, and the model directory made of them."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from stylecrafter.animatediff_convert import assemble
from stylecrafter.tokenizer import PUBLISHED_MERGES, tokenizer_from_merges

WIDTH, EMBEDDING, SIDE = 32, 24, 32


def write_parts(root: Path) -> None:
    """base/, motion/, image_encoder/ and ip_adapter.safetensors, as published ones look."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    unet.save_pretrained(root / "base" / "unet")
    motion = MotionAdapter(
        block_out_channels=(32, 64),
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=2,
    )
    for parameter in motion.parameters():  # the output projections are zero in a new one
        torch.nn.init.normal_(parameter, std=0.1)
    motion.save_pretrained(root / "motion")
    AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(root / "base" / "vae")
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": WIDTH, "intermediate_size": 64}
    tokenizer_from_merges(PUBLISHED_MERGES, 49408, 77).save_pretrained(root / "base" / "tokenizer")
    CLIPTextModel(CLIPTextConfig(**layers)).save_pretrained(root / "base" / "text_encoder")
    vision = CLIPVisionConfig(**layers, image_size=SIDE, patch_size=8, projection_dim=EMBEDDING)
    CLIPVisionModelWithProjection(vision).save_pretrained(root / "image_encoder")
    save_file(_ip_adapter(UNetMotionModel.from_unet2d(unet, motion)), root / "ip_adapter.safetensors")


def _ip_adapter(unet: UNetMotionModel) -> dict[str, torch.Tensor]:
    """Weights of an IP-Adapter in its published layout, which numbers layers by their place among all."""
    weights = {
        "image_proj.proj.weight": torch.randn(4 * WIDTH, EMBEDDING) / 5,
        "image_proj.proj.bias": torch.randn(4 * WIDTH) / 5,
        "image_proj.norm.weight": torch.ones(WIDTH),
        "image_proj.norm.bias": torch.zeros(WIDTH),
    }
    spatial = [n for n in unet.attn_processors if n.endswith("attn2.processor") and "motion_modules" not in n]
    for index, name in enumerate(spatial):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        shape = (layer.to_k.out_features, WIDTH)
        weights[f"ip_adapter.{2 * index + 1}.to_k_ip.weight"] = torch.randn(shape) / 5
        weights[f"ip_adapter.{2 * index + 1}.to_v_ip.weight"] = torch.randn(shape) / 5
    return weights


def assemble_parts(parts: Path, output: Path, **changes: Path) -> None:
    """The model directory of parts that `write_parts` wrote, or of others."""
    given = {
        "base": parts / "base",
        "motion_adapter": parts / "motion",
        "ip_adapter": parts / "ip_adapter.safetensors",
        "image_encoder": parts / "image_encoder",
    }
    assemble(**given | changes, output=output)
