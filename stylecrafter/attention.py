"""Attention processors of the StyleCrafter UNet.

Shapes: B rows, T frames, N = B*T (row major), L pixels of a frame, M sequences, C channels,
H heads, D head width, S text tokens (or all tokens attended to), K style tokens,
R = 2 * max_distance + 1 relative positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from einops import rearrange
from torch import nn


@dataclass(frozen=True)
class StyleLayer:
    """What one cross-attention layer needs of the style of each row: made once per video, not per step."""

    key_BKC: torch.Tensor
    value_BKC: torch.Tensor
    gate_B: torch.Tensor
    """style weight * (1 + fusion scale); 0 leaves exactly the text-only result."""
    norm_weight_C: torch.Tensor
    norm_bias_C: torch.Tensor
    norm_eps: float

    def with_plain_rows(self, count: int) -> StyleLayer:
        """See `StyleCondition`."""
        return replace(
            self,
            key_BKC=F.pad(self.key_BKC, (0, 0, 0, 0, 0, count)),
            value_BKC=F.pad(self.value_BKC, (0, 0, 0, 0, 0, count)),
            gate_B=F.pad(self.gate_B, (0, count)),
        )


@dataclass(frozen=True)
class AppendedTokens:
    """Style tokens that one cross-attention layer reads as more text tokens (an ablation of the paper).

    The gate multiplies the softmax weights of the style tokens before they are normalised: 1 is plain
    attention to text and style as one sequence, 0 leaves the text alone.
    """

    tokens_BKC: torch.Tensor
    gate_B: torch.Tensor

    def with_plain_rows(self, count: int) -> AppendedTokens:
        """See `StyleCondition`."""
        return AppendedTokens(F.pad(self.tokens_BKC, (0, 0, 0, 0, 0, count)), F.pad(self.gate_B, (0, count)))


@dataclass(frozen=True)
class StyleCondition:
    """Style of a batch for all cross-attention layers, in the order down, middle, up."""

    layers: tuple[StyleLayer | AppendedTokens, ...]

    def with_plain_rows(self, count: int) -> StyleCondition:
        """The same condition followed by `count` rows without style (gate 0)."""
        return StyleCondition(tuple(layer.with_plain_rows(count) for layer in self.layers))


def _attend(
    query_BHLD: torch.Tensor,
    key_BSC: torch.Tensor,
    value_BSC: torch.Tensor,
    bias_B11S: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention scaled by 1/sqrt(D), `bias_B11S` added to the logits; returns [B, L, C]."""
    heads = query_BHLD.shape[1]
    key_BHSD, value_BHSD = (rearrange(x, "b s (h d) -> b h s d", h=heads) for x in (key_BSC, value_BSC))
    out_BHLD = F.scaled_dot_product_attention(query_BHLD, key_BHSD, value_BHSD, bias_B11S)
    return rearrange(out_BHLD, "b h l d -> b l (h d)")


def _project_out(attn: Attention, hidden: torch.Tensor) -> torch.Tensor:
    linear, dropout = attn.to_out
    return dropout(linear(hidden))


class SpatialSelfAttention(AttnProcessor2_0):
    """Plain self-attention. It accepts `style` only because a transformer block hands both its
    attentions the same arguments."""

    def __call__(  # type: ignore[override, unused-ignore]
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        style: StyleCondition | None = None,
    ) -> torch.Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)


class DualCrossAttention:
    """Cross-attention on text plus adaptively scaled cross-attention on style (paper, section 3.2).

    out = Attn(q, K_text, V_text) + gate * LayerNorm(Attn(q, K_style, V_style)), then the usual output
    projection. Queries come per frame, contexts per row: the frames of a row are attended to
    as one long sequence, so that no context is repeated.
    """

    def __init__(self, layer_index: int):
        self.layer_index = layer_index

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        style: StyleCondition | None = None,
    ) -> torch.Tensor:
        """`hidden_states` [N, L, C] attends to `encoder_hidden_states` [B, S, C_text] -> [N, L, C]."""
        text_BSC = encoder_hidden_states
        frames = hidden_states.shape[0] // text_BSC.shape[0]
        query = rearrange(attn.to_q(hidden_states), "(b t) l (h d) -> b h (t l) d", t=frames, h=attn.heads)
        layer = None if style is None else style.layers[self.layer_index]
        if isinstance(layer, AppendedTokens):
            out = self._text_and_style(attn, query, text_BSC, layer)
        else:
            out = _attend(query, attn.to_k(text_BSC), attn.to_v(text_BSC))
            if layer is not None:
                out = out + self._style_part(query, layer)
        return _project_out(attn, rearrange(out, "b (t l) c -> (b t) l c", t=frames))

    @staticmethod
    def _style_part(query_BHLD: torch.Tensor, layer: StyleLayer) -> torch.Tensor:
        styled_BLC = _attend(query_BHLD, layer.key_BKC, layer.value_BKC)
        channels = styled_BLC.shape[-1]
        normed_BLC = F.layer_norm(
            styled_BLC, (channels,), layer.norm_weight_C, layer.norm_bias_C, layer.norm_eps
        )
        return layer.gate_B[:, None, None] * normed_BLC

    @staticmethod
    def _text_and_style(
        attn: Attention, query_BHLD: torch.Tensor, text_BSC: torch.Tensor, layer: AppendedTokens
    ) -> torch.Tensor:
        key, value = (
            torch.cat([project(text_BSC), project(layer.tokens_BKC)], dim=1)
            for project in (attn.to_k, attn.to_v)
        )
        style_tokens = layer.tokens_BKC.shape[1]
        bias_BK = layer.gate_B.log()[:, None].expand(-1, style_tokens)
        bias_BS = F.pad(bias_BK, (text_BSC.shape[1], 0)).to(query_BHLD.dtype)
        return _attend(query_BHLD, key, value, bias_BS[:, None, None])


class RelativeTemporalAttention(nn.Module):
    """Self-attention over frames with learned relative positions on keys and values.

    logits = (q . k + q . keys_RD[i]) / sqrt(D), out = p . v + p . values_RD[i], where
    i = clamp(key frame - query frame, -max_distance, max_distance) + max_distance
    (Shaw et al. 2018, equations 3 and 4). The tables are shared by the heads.

    Args:
        head_dim: D.
        max_distance: distance in frames from which on positions are no longer told apart.
    """

    def __init__(self, head_dim: int, max_distance: int):
        super().__init__()
        self.max_distance = max_distance
        self.keys_RD = nn.Parameter(torch.empty(2 * max_distance + 1, head_dim))
        self.values_RD = nn.Parameter(torch.empty(2 * max_distance + 1, head_dim))
        nn.init.xavier_uniform_(self.keys_RD)
        nn.init.xavier_uniform_(self.values_RD)

    # `__call__`, not `forward`: Attention drops the arguments it does not find in this signature.
    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`hidden_states` [M, T, C], one sequence of frames per pixel -> [M, T, C]."""
        query, key, value = (
            rearrange(project(hidden_states), "m t (h d) -> m h t d", h=attn.heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        index_TT = self._relative_index(hidden_states.shape[1], hidden_states.device)
        positions_TTD, values_TTD = self.keys_RD[index_TT], self.values_RD[index_TT]
        logits_MHTT = query @ key.transpose(-1, -2) + torch.einsum("mhtd,tsd->mhts", query, positions_TTD)
        weights_MHTT = (logits_MHTT * attn.scale).softmax(-1)
        out_MHTD = weights_MHTT @ value + torch.einsum("mhts,tsd->mhtd", weights_MHTT, values_TTD)
        return _project_out(attn, rearrange(out_MHTD, "m h t d -> m t (h d)"))

    def _relative_index(self, frames: int, device: torch.device) -> torch.Tensor:
        position_T = torch.arange(frames, device=device)
        distance_TT = position_T[None, :] - position_T[:, None]
        return distance_TT.clamp(-self.max_distance, self.max_distance) + self.max_distance
