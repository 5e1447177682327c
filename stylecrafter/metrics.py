"""The paper's metrics (supplement B) and two of our own, as functions of embeddings and frames.

CLIP-Text, CLIP-Style, CLIP-Temp and DINO-Style are raw cosine similarities. Where the paper leaves a choice open,
the docstring says what ours is.

Shapes: T frames, R references, B prompts, H, W pixels, P width of an embedding, L patches, S pairs of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.utils.accelerate_utils import apply_forward_hook
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import OpenClipTokenizer


@torch.no_grad()
@apply_forward_hook  # an offloaded encoder comes to the device for it
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
@apply_forward_hook
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
    """CLIP-Style or, of DINO embeddings, DINO-Style: mean similarity of frames and references, in [-1, 1].

    The paper does not say how several references are reduced; the mean is our choice.
    """
    return float(_cosine(frames_TP, references_RP).mean())


def clip_temp_score(frames_TP: torch.Tensor) -> float | None:
    """CLIP-Temp: mean similarity of consecutive frames, in [-1, 1]; None for a single frame."""
    if len(frames_TP) < 2:
        return None
    return float(F.cosine_similarity(frames_TP[:-1].float(), frames_TP[1:].float(), dim=-1).mean())


_LAYOUT_SIDE = 8


def layout_embedding(patches_TLP: torch.Tensor) -> torch.Tensor:
    """What lies where in a picture, whatever it is drawn with: which patches resemble which, float32 [T, S].

    The cosine similarity of all pairs of a transformer's patches, centred and of unit length, so that the product
    of two pictures' is the correlation of their layouts. (That self-similarity keeps structure and drops appearance
    is the observation of Tumanyan et al., Splicing ViT Features, CVPR 2022.)

    Args:
        patches_TLP: last hidden states of a square grid of patches, without class token; pooled to 8 x 8.
    """
    side = int(patches_TLP.shape[1] ** 0.5)
    grid_TPHW = patches_TLP.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    pooled_TPL = F.adaptive_avg_pool2d(grid_TPHW, min(side, _LAYOUT_SIDE)).flatten(2)
    unit_TPL = F.normalize(pooled_TPL, dim=1)
    similarity_TLL = unit_TPL.mT @ unit_TPL
    count = similarity_TLL.shape[1]
    row, column = torch.triu_indices(count, count, offset=1)
    pairs_TS = similarity_TLL[:, row, column]
    return F.normalize(pairs_TS - pairs_TS.mean(dim=1, keepdim=True), dim=1)


def content_leak(layout_VS: np.ndarray, references_RS: np.ndarray, own_V: np.ndarray) -> np.ndarray:
    """By how much videos have the layout of their own reference more than that of the others, about -1 to 1 [V].

    A style carries no layout: 0 means that the reference's content is not in the video. Ours, not the paper's.

    Args:
        layout_VS: mean layout embedding of each video's frames.
        references_RS: the layout embedding of each style (mean over its references), at least two.
        own_V: which of them is the video's.
    """
    correlation_VR = layout_VS @ references_RS.T
    own = correlation_VR[np.arange(len(own_V)), own_V]
    others = (correlation_VR.sum(axis=1) - own) / (references_RS.shape[0] - 1)
    return own - others


def style_rank(frames_VP: np.ndarray, references_RP: np.ndarray, own_V: np.ndarray) -> np.ndarray:
    """The place of each video's own style among all styles by similarity, 1 for the nearest [V]. Ours.

    Args:
        frames_VP: mean of the unit embeddings of each video's frames.
        references_RP: mean of the unit embeddings of each style's references.
        own_V: which of them is the video's. Others that are just as near do not count against it.
    """
    similarity_VR = frames_VP @ references_RP.T
    own_V1 = similarity_VR[np.arange(len(own_V)), own_V][:, None]
    return 1 + (similarity_VR > own_V1).sum(axis=1)


FlowModel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Two pictures [N, 3, H, W] in [-1, 1] -> the optical flow from the first to the second [N, 2, H, W], pixels (x, y)."""


@torch.no_grad()
def warping_error(frames_THWC: np.ndarray, flow: FlowModel) -> float | None:
    """Mean squared difference of each frame and the next one warped back to it; None for a single frame.

    Colours are in [0, 1]; pixels that move out of the picture do not count; occlusion is not masked. The paper
    says neither norm nor mask, so its figures tell an order of magnitude and no more.
    """
    if len(frames_THWC) < 2:
        return None
    frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2).float() / 255
    errors = []
    for first, second in zip(frames_TCHW[:-1, None], frames_TCHW[1:, None], strict=True):
        warped, inside = _warp(second, flow(first * 2 - 1, second * 2 - 1).float().cpu())
        if inside.any():
            errors.append(float(((first - warped) ** 2).mean(dim=1)[inside].mean()))
    return sum(errors) / len(errors) if errors else None


def _warp(picture_NCHW: torch.Tensor, flow_N2HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the picture shows where the flow points to, and where that is inside it [N, H, W]."""
    height, width = picture_NCHW.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x_NHW, y_NHW = x + flow_N2HW[:, 0], y + flow_N2HW[:, 1]
    inside_NHW = (x_NHW >= 0) & (x_NHW <= width - 1) & (y_NHW >= 0) & (y_NHW <= height - 1)
    grid_NHW2 = torch.stack([2 * x_NHW / max(width - 1, 1) - 1, 2 * y_NHW / max(height - 1, 1) - 1], dim=-1)
    return F.grid_sample(picture_NCHW, grid_NHW2, align_corners=True), inside_NHW


def _cosine(frames_TP: torch.Tensor, others_RP: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every frame with every other embedding [T, R]."""
    return F.normalize(frames_TP.float(), dim=-1) @ F.normalize(others_RP.float(), dim=-1).T
