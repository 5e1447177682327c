"""Trained parts as components of a model directory."""

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import ModelMixin
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection, PreTrainedModel

from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import PUBLISHED_MERGES, OpenClipTokenizer, tokenizer_from_merges


class Clip(NamedTuple):
    """Both towers and what feeds them; the names are those of StyleCrafterPipeline's components."""

    text_encoder: CLIPTextModelWithProjection
    tokenizer: OpenClipTokenizer
    image_encoder: CLIPVisionModelWithProjection
    feature_extractor: StyleImageProcessor


def save_component(model: ModelMixin | PreTrainedModel, folder: Path) -> None:
    """config.json and safetensors in half precision; the model itself stays as it is."""
    half = copy.deepcopy(model)
    for tensor in (*half.parameters(), *half.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().contiguous()  # safetensors stores no strides
    half.save_pretrained(folder, safe_serialization=True)
    for file in folder.iterdir():
        file.chmod(0o644)


def load_clip(folder: Path) -> Clip:
    """What train_clip has written, in single precision; a tokenizer that it left out is made again."""
    text = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    vision = CLIPVisionModelWithProjection.from_pretrained(
        folder / "image_encoder", dtype=torch.float32
    ).eval()
    if (folder / "tokenizer").is_dir():
        tokenizer = OpenClipTokenizer.from_pretrained(folder / "tokenizer")
    else:
        sizes = text.config.vocab_size, text.config.max_position_embeddings
        tokenizer = tokenizer_from_merges(PUBLISHED_MERGES, *sizes)
    return Clip(text, tokenizer, vision, StyleImageProcessor.from_pretrained(folder / "feature_extractor"))
