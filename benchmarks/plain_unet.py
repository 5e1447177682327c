"""The UNet's attention in its plainest form, as the published model is described: what the benchmark compares with.

Softmax attention is written out; text and style are repeated for every frame, and their keys and values are made anew
in every layer of every call. Weights and every other layer are the same.

Shapes: B rows, T frames, N = B*T, L pixels, S tokens of text, K of style, C channels, H heads, D head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange

from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.unet import StyleCrafterUNet


@dataclass(frozen=True)
class PlainStyle:
    """Style tokens and each layer's gate, in place of a `StyleCondition`."""

    adapter: StyleAdapter
    tokens_BKC: torch.Tensor
    gates_BL: torch.Tensor


def _attend(
    query_NLC: torch.Tensor, key_NSC: torch.Tensor, value_NSC: torch.Tensor, heads: int
) -> torch.Tensor:
    query, key, value = (
        rearrange(x, "n l (h d) -> (n h) l d", h=heads) for x in (query_NLC, key_NSC, value_NSC)
    )
    weights = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(-1)
    return rearrange(weights @ value, "(n h) l d -> n l (h d)", h=heads)


class PlainSelfAttention:
    """Self-attention of the pixels of each frame."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: None = None,
        attention_mask: None = None, style: PlainStyle | None = None,
    ) -> torch.Tensor:  # fmt: skip
        key, value = attn.to_k(hidden_states), attn.to_v(hidden_states)
        out = _attend(attn.to_q(hidden_states), key, value, attn.heads)
        return attn.to_out[1](attn.to_out[0](out))


class PlainCrossAttention:
    """Attention of every frame's pixels to its own copy of text and style."""

    def __init__(self, layer_index: int):
        self._index = layer_index

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        style: PlainStyle | None = None,
    ) -> torch.Tensor:
        frames = len(hidden_states) // len(encoder_hidden_states)
        query = attn.to_q(hidden_states)
        text_NSC = encoder_hidden_states.repeat_interleave(frames, dim=0)
        out = _attend(query, attn.to_k(text_NSC), attn.to_v(text_NSC), attn.heads)
        if style is not None:
            layer: Any = style.adapter.layers[self._index]
            tokens_NKC = style.tokens_BKC.repeat_interleave(frames, dim=0)
            styled = _attend(query, layer.to_k(tokens_NKC), layer.to_v(tokens_NKC), attn.heads)
            normed = F.layer_norm(
                styled, styled.shape[-1:], layer.norm.weight, layer.norm.bias, layer.norm.eps
            )
            gate_N = style.gates_BL[:, self._index].repeat_interleave(frames)
            out = out + gate_N[:, None, None] * normed
        return attn.to_out[1](attn.to_out[0](out))


@contextmanager
def plain_attention(unet: StyleCrafterUNet) -> Iterator[None]:
    """In the block, spatial attention is plain; temporal attention is written out anyway."""
    blocks = [transformer.transformer_blocks[0] for transformer in unet.spatial_transformers()]
    before = [(block.attn1.processor, block.attn2.processor) for block in blocks]
    try:
        for index, block in enumerate(blocks):
            block.attn1.processor = PlainSelfAttention()
            block.attn2.processor = PlainCrossAttention(index)
        yield
    finally:
        for block, (spatial, cross) in zip(blocks, before, strict=True):
            block.attn1.processor, block.attn2.processor = spatial, cross
