"""Names of published tensors for every tensor of a model directory.

A map goes from our key to where the published files have it; so it can say what is missing before
anything is loaded, and what was left over after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

KeyMap = dict[str, "Source"]
Rules = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """Where a tensor comes from.

    Attributes:
        key: published name.
        part: (index, count) of equal parts along the first axis; OpenCLIP packs q, k and v together.
        transposed: published the other way round, as a matrix to multiply with from the right.
    """

    key: str
    part: tuple[int, int] = (0, 1)
    transposed: bool = False

    def published_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """Shape of the published tensor for ours, but for trailing ones."""
        rows, *rest = reversed(shape) if self.transposed else shape
        return (rows * self.part[1], *rest)

    def fits(self, published: torch.Tensor, shape: torch.Size) -> bool:
        """Whether the published tensor has the right shape; a 1x1 convolution may stand for a linear layer."""
        expected = self.published_shape(shape)
        found = tuple(published.shape)
        return found[: len(expected)] == expected and all(size == 1 for size in found[len(expected) :])

    def take(self, published: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Our tensor, a view of the published one where possible."""
        index, count = self.part
        tensor = published.reshape(self.published_shape(shape)).chunk(count)[index]
        return (tensor.T if self.transposed else tensor).contiguous()


def _rewrite(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


# ---- UNet ----------------------------------------------------------------------------------------


def unet_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Published name of every block of the UNet, e.g. `down_blocks.0.attentions.1` -> `input_blocks.2.1`.

    The order is down, middle, up: that of the fusion scales.
    """
    modules = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "fps_embedding.linear_1": "fps_embedding.0",
        "fps_embedding.linear_2": "fps_embedding.2",
        "transformer_in": "init_attn.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    index = 1
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            modules |= _layer(f"down_blocks.{level}", layer, f"input_blocks.{index}", "CrossAttn" in kind)
            index += 1
        if level < levels - 1:
            modules[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{index}.0.op"
            index += 1
    modules |= _layer("mid_block", 0, "middle_block", attention=True)
    modules |= _residual("mid_block", 1, "middle_block.3")
    index = 0
    for level, kind in enumerate(config["up_block_types"]):
        attention = "CrossAttn" in kind
        for layer in range(layers + 1):
            modules |= _layer(f"up_blocks.{level}", layer, f"output_blocks.{index}", attention)
            index += 1
        if level < levels - 1:
            place = 3 if attention else 1
            modules[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{index - 1}.{place}.conv"
    return modules


def _layer(block: str, layer: int, published: str, attention: bool) -> dict[str, str]:
    modules = _residual(block, layer, f"{published}.0")
    if attention:
        modules[f"{block}.attentions.{layer}"] = f"{published}.1"
        modules[f"{block}.temp_attentions.{layer}"] = f"{published}.2"
    return modules


def _residual(block: str, layer: int, published: str) -> dict[str, str]:
    """A residual block and its temporal convolutions, in the published spelling."""
    return {
        f"{block}.resnets.{layer}": published,
        f"{block}.temp_convs.{layer}": f"{published}.temopral_conv",
    }


_RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TABLES = {
    "processor.keys_RD": "relative_position_k.embeddings_table",
    "processor.values_RD": "relative_position_v.embeddings_table",
}


def unet_map(keys: Iterable[str], config: Mapping[str, Any]) -> KeyMap:
    """Sources relative to `model.diffusion_model.`"""
    modules = unet_modules(config)
    return {key: Source(_unet_key(key, modules)) for key in keys}


def _unet_key(key: str, modules: Mapping[str, str]) -> str:
    module = next(m for m in _prefixes(key) if m in modules)
    rest = key[len(module) + 1 :]
    if ".resnets." in f".{module}":
        part, leaf = rest.rsplit(".", 1)
        rest = f"{_RESNET_PARTS[part]}.{leaf}"
    for ours, published in _TABLES.items():
        rest = rest.replace(ours, published)
    return f"{modules[module]}.{rest}"


def _prefixes(key: str) -> Iterator[str]:
    parts = key.split(".")
    return (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))


def is_temporal(key: str) -> bool:
    """Whether a key of our UNet belongs to a temporal layer: what image mode skips."""
    return key.startswith("transformer_in.") or ".temp_attentions." in key or ".temp_convs." in key


# ---- Adapter -------------------------------------------------------------------------------------

_ADAPTER_RULES: Rules = (
    (r"^style_transformer\.queries$", "image_context_model.style_emb"),
    (r"^scale_transformer\.queries$", "scale_predictor.scale_emb"),
    (r"^style_transformer\.", "image_context_model."),
    (r"^scale_transformer\.", "scale_predictor."),
    (r"^style_proj\.weight$", "image_context_model.proj"),
    (r"^scale_head\.", "scale_predictor.out."),
    (r"\.norm_in\.", ".ln1."),
    (r"\.norm_out\.", ".ln2."),
    (r"\.blocks\.", ".transformer_blocks.resblocks."),
    (r"\.self_attn\.", ".attn."),
    (r"\.linear1\.", ".mlp.c_fc."),
    (r"\.linear2\.", ".mlp.c_proj."),
    (r"\.norm([12])\.", r".ln_\1."),
)


def adapter_map(keys: Iterable[str], unet_config: Mapping[str, Any]) -> KeyMap:
    """Sources in adapter_v1.pth; a style layer is named after its place in the UNet."""
    places = [name for ours, name in unet_modules(unet_config).items() if ".attentions." in ours]
    return {key: _adapter_source(key, places) for key in keys}


def text_projections(keys: Iterable[str], unet_config: Mapping[str, Any]) -> dict[str, str]:
    """The text's key or value projection in our UNet for each of the adapter's style keys and values."""
    places = [ours for ours in unet_modules(unet_config) if ".attentions." in ours]
    return {
        key: f"{places[int(key.split('.')[1])]}.transformer_blocks.0.attn2.{key.split('.', 2)[2]}"
        for key in keys
        if re.fullmatch(r"layers\.\d+\.to_[kv]\.weight", key)
    }


def _adapter_source(key: str, places: Sequence[str]) -> Source:
    if not key.startswith("layers."):
        return Source(_rewrite(key, _ADAPTER_RULES), transposed=key == "style_proj.weight")
    _, layer, part, leaf = key.split(".")
    place = f"{places[int(layer)]}.transformer_blocks.0.attn2_processor".replace(".", "_")
    return Source(f"kv_attn_layers.{place}.{part}_style.{leaf}")


# ---- Depth adapter -------------------------------------------------------------------------------


def depth_map(keys: Iterable[str], num_res_blocks: int) -> KeyMap:
    """Sources in the depth adapter's file, which numbers the blocks of all levels in one row.

    Args:
        num_res_blocks: per level.
    """

    def published(key: str) -> str:
        _, name, *rest = key.split(".")
        if name != "body":
            return ".".join((name, *rest))
        level, part, *leaf = rest
        block = int(level) * num_res_blocks
        if part == "in_conv":
            return f"body.{block}.in_conv.{leaf[0]}"
        return f"body.{block + int(leaf[0])}.{leaf[1]}.{leaf[2]}"

    return {key: Source(published(key)) for key in keys}


# ---- CLIP ----------------------------------------------------------------------------------------

_CLIP_RULES: Rules = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.", ""),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "conv1."),
    (r"^vision_model\.embeddings\.", ""),
    (r"^vision_model\.pre_layrnorm\.", "ln_pre."),
    (r"^vision_model\.post_layernorm\.", "ln_post."),
    (r"^vision_model\.", ""),
    (r"^visual_projection\.weight$", "proj"),
    (r"encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.[qkv]_proj\.", ".attn.in_proj_"),
    (r"\.self_attn\.", ".attn."),
)


def clip_map(keys: Iterable[str]) -> KeyMap:
    """Sources in open_clip_pytorch_model.bin (the vision tower's are relative to `visual.`)."""
    return {key: _clip_source(key) for key in keys}


def _clip_source(key: str) -> Source:
    packed = re.search(r"\.([qkv])_proj\.", key)
    part = ("qkv".index(packed[1]), 3) if packed else (0, 1)
    return Source(_rewrite(key, _CLIP_RULES), part, transposed=key.endswith("_projection.weight"))


# ---- VAE -----------------------------------------------------------------------------------------

_VAE_RULES: Rules = (
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.group_norm\.", "mid.attn_1.norm."),
    (r"mid_block\.attentions\.0\.to_([qkv])\.", r"mid.attn_1.\1."),
    (r"mid_block\.attentions\.0\.to_out\.0\.", "mid.attn_1.proj_out."),
    (r"(down|up)_blocks\.(\d+)\.resnets\.", r"\1.\2.block."),
    (r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r"\1.\2.\3sample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)


def vae_map(keys: Iterable[str], levels: int) -> KeyMap:
    """Sources relative to `first_stage_model.`; the decoder's levels are counted from the other end."""

    def published(key: str) -> str:
        key = _rewrite(key, _VAE_RULES)
        return re.sub(r"decoder\.up\.(\d+)", lambda found: f"decoder.up.{levels - 1 - int(found[1])}", key)

    return {key: Source(published(key)) for key in keys}
