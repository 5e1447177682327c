"""CLIP-Text, CLIP-Style and CLIP-Temp as the paper defines them (supplement B): raw cosine similarity.

Shapes: T frames, R references, B prompts, H, W pixels, P width of the joint CLIP space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import OpenClipTokenizer


@torch.no_grad()
def clip_image_embeddings(
    image_encoder: CLIPVisionModelWithProjection,
    processor: StyleImageProcessor,
    frames_THWC: np.ndarray | Sequence[np.ndarray],
    batch_size: int = 32,
) -> torch.Tensor:
    """Unit CLIP embeddings of uint8 RGB pictures, float32 [T, P] on the CPU.

    The whole vision tower with its projection, on CLIP's own preprocessing (not the references').

    Args:
        frames_THWC: one array, or a sequence of [H, W, 3] arrays of any sizes.
        batch_size: pictures encoded together.
    """
    weight = image_encoder.visual_projection.weight
    embeddings = []
    for start in range(0, len(frames_THWC), batch_size):
        images = [Image.fromarray(frame) for frame in frames_THWC[start : start + batch_size]]
        pixels = processor.clip(images).to(weight.device, weight.dtype)
        embeddings.append(image_encoder(pixels).image_embeds)
    return F.normalize(torch.cat(embeddings).float(), dim=-1).cpu()


@torch.no_grad()
def clip_text_embeddings(
    text_encoder: CLIPTextModelWithProjection, tokenizer: OpenClipTokenizer, prompts: Sequence[str]
) -> torch.Tensor:
    """Unit CLIP embeddings of prompts, float32 [B, P] on the CPU: all layers and the projection."""
    ids = tokenizer.prompt_ids(prompts).to(text_encoder.text_projection.weight.device)
    return F.normalize(text_encoder(ids).text_embeds.float(), dim=-1).cpu()


def clip_text_score(frames_TP: torch.Tensor, prompt_P: torch.Tensor) -> float:
    """CLIP-Text: mean over frames of the similarity to the prompt, in [-1, 1]."""
    return float(_cosine(frames_TP, prompt_P[None]).mean())


def clip_style_score(frames_TP: torch.Tensor, references_RP: torch.Tensor) -> float:
    """CLIP-Style: mean over frames and references of their similarity, in [-1, 1].

    The paper does not say how several references are reduced; the mean is our choice.
    """
    return float(_cosine(frames_TP, references_RP).mean())


def clip_temp_score(frames_TP: torch.Tensor) -> float | None:
    """CLIP-Temp: mean similarity of consecutive frames, in [-1, 1]; None for a single frame."""
    if len(frames_TP) < 2:
        return None
    return float(F.cosine_similarity(frames_TP[:-1].float(), frames_TP[1:].float(), dim=-1).mean())


def _cosine(frames_TP: torch.Tensor, others_RP: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every frame with every other embedding [T, R]."""
    return F.normalize(frames_TP.float(), dim=-1) @ F.normalize(others_RP.float(), dim=-1).T
