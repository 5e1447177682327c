"""The style adapter: what StyleCrafter adds to a text-to-video model.

Shapes: B rows, I image tokens (all references of a row, one after another), K style tokens,
S text tokens, C channels of the tokens at hand, L style cross-attention layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from stylecrafter.attention import AppendedTokens, StyleCondition, StyleLayer
from stylecrafter.unet import StyleCrafterUNet

FUSIONS = ("adaptive", "fixed", "append")
PUBLISHED_LAYER_CHANNELS = (320, 320, 640, 640, *(1280,) * 6, 640, 640, 640, 320, 320, 320)


class QueryTransformer(nn.Module):
    """Learned queries that read a set of tokens through joint self-attention; returns the queries.

    No positions are added: the order of the tokens does not matter.
    """

    def __init__(self, num_queries: int, dim: int, num_layers: int, num_heads: int):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_queries, dim) * dim**-0.5)
        self.norm_in = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, num_heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, tokens_BIC: torch.Tensor, weights_BI: torch.Tensor | None = None) -> torch.Tensor:
        """[B, any number, C] -> [B, num_queries, C].

        Args:
            weights_BI: above 0; a token of weight 2 is attended to as if it were there twice. None: all 1.
        """
        queries = self.queries.expand(tokens_BIC.shape[0], -1, -1)
        hidden = self.norm_in(torch.cat([queries, tokens_BIC], dim=1))
        if weights_BI is None:
            for block in self.blocks:
                hidden = block(hidden)
        else:
            bias_BL = F.pad(weights_BI.to(hidden).log(), (queries.shape[1], 0))
            for block in self.blocks:
                hidden = self._weighted(block, hidden, bias_BL)
        return self.norm_out(hidden[:, : queries.shape[1]])

    @staticmethod
    def _weighted(block: Any, hidden: torch.Tensor, bias_BL: torch.Tensor) -> torch.Tensor:
        # The block's own fast path (torch 2.13) takes any mask for one of booleans.
        normed = block.norm1(hidden)
        attended, _ = block.self_attn(normed, normed, normed, key_padding_mask=bias_BL, need_weights=False)
        hidden = hidden + attended
        return hidden + block.linear2(block.activation(block.linear1(block.norm2(hidden))))


class StyleProjection(nn.Module):
    """Keys and values of the style tokens for one cross-attention layer, and the norm of its result."""

    def __init__(self, context_dim: int, channels: int):
        super().__init__()
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.norm = nn.LayerNorm(channels)

    def forward(self, style_BKC: torch.Tensor, gate_B: torch.Tensor) -> StyleLayer:
        return StyleLayer(
            self.to_k(style_BKC),
            self.to_v(style_BKC),
            gate_B.to(style_BKC.dtype),
            self.norm.weight,
            self.norm.bias,
            self.norm.eps,
        )


class StyleAdapter(ModelMixin, ConfigMixin):
    """Style tokens from reference images, fusion scales, and the style's keys and values (paper, 3.1-3.2).

    Everything stage 1 of the training trains is here; the UNet holds none of it. The defaults are
    the published model's (111,188,161 parameters).

    Args:
        image_dim: width of the image tokens.
        context_dim: width of the text and style tokens.
        num_style_tokens: style tokens made of any number of references.
        num_layers, num_heads: of the style transformer.
        scale_num_layers, scale_num_heads, scale_hidden_dim: of the scale predictor.
        layer_channels: width of every style cross-attention, see `StyleCrafterUNet.style_layer_channels`.
        fusion: "adaptive" is the published form; the others are ablations of the paper. "fixed" adds the
            style without predicted scales. "append" has no style attention: the text's own keys and values
            read the style tokens as more text. What a form does not use is not made, so that files and
            parameter counts show what a model is, and an optimiser carries no dead weights.

    Raises:
        ValueError: another fusion.
    """

    @register_to_config
    def __init__(
        self,
        image_dim: int = 1280,
        context_dim: int = 1024,
        num_style_tokens: int = 8,
        num_layers: int = 3,
        num_heads: int = 8,
        scale_num_layers: int = 2,
        scale_num_heads: int = 8,
        scale_hidden_dim: int = 32,
        layer_channels: tuple[int, ...] = PUBLISHED_LAYER_CHANNELS,
        fusion: str = "adaptive",
    ):
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is {fusion!r}; allowed are {', '.join(map(repr, FUSIONS))}")
        self.style_transformer = QueryTransformer(num_style_tokens, image_dim, num_layers, num_heads)
        self.style_proj = nn.Linear(image_dim, context_dim, bias=False)
        if fusion == "adaptive":
            self.scale_transformer = QueryTransformer(
                len(layer_channels), context_dim, scale_num_layers, scale_num_heads
            )
            self.scale_head = nn.Sequential(
                nn.Linear(context_dim, scale_hidden_dim), nn.GELU(), nn.Linear(scale_hidden_dim, 1), nn.Tanh()
            )
        if fusion != "append":
            self.layers = nn.ModuleList(StyleProjection(context_dim, channels) for channels in layer_channels)

    def with_fusion(self, fusion: str) -> StyleAdapter:
        """A new adapter of another form: what both have is copied, what this one lacks is freshly drawn."""
        other = StyleAdapter.from_config(self.config, fusion=fusion)
        other.load_state_dict(self.state_dict(), strict=False)
        nn.Module.to(other, next(self.parameters()))  # device and dtype
        return other.train(self.training)

    def encode(self, image_tokens_BIC: torch.Tensor, weights_BI: torch.Tensor | None = None) -> torch.Tensor:
        """Image tokens of all references of a row [B, I, C] -> style tokens [B, K, C].

        Args:
            weights_BI: how often each token counts, above 0; None: once.
        """
        return self.style_proj(self.style_transformer(image_tokens_BIC, weights_BI))

    def predict_scales(self, style_BKC: torch.Tensor, text_BSC: torch.Tensor) -> torch.Tensor:
        """Fusion scale of every layer [B, L, 1] in (-1, 1), from style and text; 0 without a predictor."""
        if self.config.fusion != "adaptive":
            return style_BKC.new_zeros(len(style_BKC), len(self.config.layer_channels), 1)
        return self.scale_head(self.scale_transformer(torch.cat([style_BKC, text_BSC], dim=1)))

    def condition(
        self,
        style_BKC: torch.Tensor,
        fusion_scales_BL1: torch.Tensor | None = None,
        style_scale: float | torch.Tensor = 1.0,
    ) -> StyleCondition:
        """What the UNet's cross-attentions take in, made once for all denoising steps.

        Args:
            style_BKC: style tokens.
            fusion_scales_BL1: from `predict_scales`; None stands for no scale predictor (all zero).
            style_scale: user's weight of the style, one for all, one per row [B] or one per row and layer
                [B, L]; 0 is text only.

        Raises:
            ValueError: a shape does not fit the batch or the number of layers, or a weight below 0 where
                style is appended.
        """
        batch, layers = style_BKC.shape[0], len(self.config.layer_channels)
        if fusion_scales_BL1 is None:
            fusion_scales_BL1 = style_BKC.new_zeros(batch, layers, 1)
        if fusion_scales_BL1.shape != (batch, layers, 1):
            raise ValueError(
                f"fusion scales have shape {tuple(fusion_scales_BL1.shape)}; expected {(batch, layers, 1)}"
            )
        weight = torch.as_tensor(style_scale, dtype=torch.float32, device=style_BKC.device)
        if weight.shape not in ((), (batch,), (batch, layers)):
            raise ValueError(
                f"style_scale has shape {tuple(weight.shape)}; expected one number, ({batch},) or {(batch, layers)}"
            )
        weight = weight[:, None] if weight.ndim == 1 else weight
        gates_BL = weight * (1 + fusion_scales_BL1.squeeze(-1))
        return StyleCondition(self._layers_of(style_BKC, gates_BL))

    def _layers_of(
        self, style_BKC: torch.Tensor, gates_BL: torch.Tensor
    ) -> tuple[StyleLayer | AppendedTokens, ...]:
        if self.config.fusion == "append":
            if (gates_BL < 0).any():
                raise ValueError("style_scale is below 0; appended style tokens allow 0 or more")
            return tuple(AppendedTokens(style_BKC, gate_B) for gate_B in gates_BL.unbind(1))
        return tuple(
            layer(style_BKC, gate_B) for layer, gate_B in zip(self.layers, gates_BL.unbind(1), strict=True)
        )

    @torch.no_grad()
    def copy_text_projections(self, unet: StyleCrafterUNet) -> None:
        """Start the style keys and values as copies of the text's, as the authors did for training.

        Appended style tokens are read by the text's own; there is nothing to copy.
        """
        if self.config.fusion == "append":
            return
        projections: list[Any] = list(self.layers)
        for layer, transformer in zip(projections, unet.spatial_transformers(), strict=True):
            attention = transformer.transformer_blocks[0].attn2
            layer.to_k.weight.copy_(attention.to_k.weight)
            layer.to_v.weight.copy_(attention.to_v.weight)

    def forward(
        self, image_tokens_BIC: torch.Tensor, text_BSC: torch.Tensor, style_scale: float | torch.Tensor = 1.0
    ) -> StyleCondition:
        """Image tokens and text embedding -> the UNet's style condition; what a training step calls."""
        style_BKC = self.encode(image_tokens_BIC)
        return self.condition(style_BKC, self.predict_scales(style_BKC, text_BSC), style_scale)


def concatenate_references(image_tokens: Sequence[torch.Tensor]) -> torch.Tensor:
    """Image tokens of a row's references, each [1, I, C] -> [1, n * I, C]."""
    return torch.cat(list(image_tokens), dim=1)


def mix_styles(first_BKC: torch.Tensor, second_BKC: torch.Tensor, share_B: torch.Tensor) -> torch.Tensor:
    """Style tokens on the straight line from one style (share 0) to another (share 1), token by token."""
    return torch.lerp(first_BKC, second_BKC, share_B.to(first_BKC)[:, None, None])
