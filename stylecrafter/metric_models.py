"""The networks that metrics look through, from directories: CLIP, DINO, and optical flow where the user has one.

Shapes: T pictures, B prompts, H, W pixels, P width of an embedding, L patches of a picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    AutoModel,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

from stylecrafter.metrics import FlowModel
from stylecrafter.style_encoder import StyleImageProcessor
from stylecrafter.tokenizer import PUBLISHED_MERGES, OpenClipTokenizer, tokenizer_from_merges

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 32
FLOW_FILE = "flow.pt2"


class Clip:
    """Both towers of a CLIP with their projections.

    Args:
        directory: a model directory of ours, the CLIP of one alone, or what transformers saves of a CLIPModel.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, directory: Path, device: str = "cpu", dtype: torch.dtype = torch.float32):
        if (directory / "image_encoder").is_dir() and (directory / "text_encoder").is_dir():
            self.text = CLIPTextModelWithProjection.from_pretrained(directory / "text_encoder", dtype=dtype)
            self.vision = CLIPVisionModelWithProjection.from_pretrained(
                directory / "image_encoder", dtype=dtype
            )
            self.tokenizer = _tokenizer(directory, self.text.config)
            self.processor = StyleImageProcessor.from_pretrained(directory / "feature_extractor")
            fingerprint = directory / "fingerprint"
            self.name = (
                f"model:{fingerprint.read_text().strip()[:16]}"
                if fingerprint.is_file()
                else directory_name(directory)
            )
        elif _config(directory).get("model_type") == "clip":
            self.text = self.vision = CLIPModel.from_pretrained(directory, dtype=dtype)
            self.tokenizer = tokenizer_from_merges(PUBLISHED_MERGES, self.text.config.text_config.vocab_size)
            self.processor = StyleImageProcessor(self.vision.config.vision_config.image_size)
            self.name = directory_name(directory)
        else:
            raise ValueError(f"{directory}: neither a model directory nor a CLIP that transformers saved")
        self.text.eval().to(device)
        self.vision.eval().to(device)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings of prompts, float32 [B, P]."""
        ids = self.tokenizer.prompt_ids(prompts).to(self.text.text_projection.weight.device)
        embedded = self.text.text_projection(self.text.text_model(ids).pooler_output)
        return F.normalize(embedded.float(), dim=-1).cpu()

    @torch.no_grad()
    def pictures(self, pictures_THWC: Sequence[np.ndarray] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit embeddings [T, P] and patches [T, L, C] of uint8 RGB pictures, float32 on the CPU."""
        weight = self.vision.visual_projection.weight
        embedded, patches = [], []
        for images in _batches(pictures_THWC):
            output = self.vision.vision_model(self.processor.clip(images).to(weight.device, weight.dtype))
            embedded.append(self.vision.visual_projection(output.pooler_output).float().cpu())
            patches.append(output.last_hidden_state[:, 1:].float().cpu())
        return F.normalize(torch.cat(embedded), dim=-1), torch.cat(patches)


class Dino:
    """A DINO vision transformer (ViT or DINOv2), as transformers saves it. The embedding is the class token.

    Raises:
        ValueError: the directory holds another model.
    """

    def __init__(self, directory: Path, device: str = "cpu"):
        config = _config(directory)
        if config.get("model_type") not in {"vit", "dinov2", "dinov2_with_registers"}:
            raise ValueError(f"{directory}: model_type {config.get('model_type')!r} is not vit or dinov2")
        self.name = directory_name(directory)
        self.model = AutoModel.from_pretrained(directory).eval().to(device)
        self._other_tokens = 1 + int(config.get("num_register_tokens") or 0)
        given = _json(directory / "preprocessor_config.json")
        crop = given.get("crop_size") or given.get("size") or {}
        self._side = int(crop.get("height") or crop.get("shortest_edge") or config.get("image_size") or 224)
        self._short = max(self._side, int((given.get("size") or {}).get("shortest_edge") or self._side))
        mean, std = given.get("image_mean") or _IMAGENET_MEAN, given.get("image_std") or _IMAGENET_STD
        self._processor = StyleImageProcessor(self._side, mean=mean, std=std)

    @torch.no_grad()
    def pictures(self, pictures_THWC: Sequence[np.ndarray] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit embeddings [T, P] and patches [T, L, C] of uint8 RGB pictures, float32 on the CPU."""
        embedded, patches = [], []
        for images in _batches(pictures_THWC):
            cropped = [_centre(image, self._short, self._side) for image in images]
            tokens_TLP = self.model(self._processor.clip(cropped).to(self.model.device)).last_hidden_state
            embedded.append(tokens_TLP[:, 0].float().cpu())
            patches.append(tokens_TLP[:, self._other_tokens :].float().cpu())
        return F.normalize(torch.cat(embedded), dim=-1), torch.cat(patches)


def load_flow(directory: Path, device: str = "cpu") -> tuple[FlowModel, str]:
    """An optical flow network and its name: `flow.pt2`, as `torch.export.save` writes it.

    It takes two pictures [1, 3, H, W] in [-1, 1] and gives the flow between them, or a list whose last is the
    finest, as RAFT does. The program in the file is run: only take one whose origin you know.

    Raises:
        ValueError: there is no such file.
    """
    file = directory / FLOW_FILE
    if not file.is_file():
        raise ValueError(
            f"{directory}: no {FLOW_FILE} there. The warping error needs an optical flow network; none comes with "
            "this project, and docs/evaluation.md says how to export torchvision's RAFT-small"
        )
    network = torch.export.load(file).module().to(device)

    def flow(first_N3HW: torch.Tensor, second_N3HW: torch.Tensor) -> torch.Tensor:
        found = network(first_N3HW.to(device), second_N3HW.to(device))
        return found[-1] if isinstance(found, list | tuple) else found

    return flow, directory_name(directory)


def _tokenizer(directory: Path, text: CLIPTextConfig) -> OpenClipTokenizer:
    if (directory / "tokenizer").is_dir():
        return OpenClipTokenizer.from_pretrained(directory / "tokenizer")
    return tokenizer_from_merges(PUBLISHED_MERGES, text.vocab_size, text.max_position_embeddings)


def directory_name(directory: Path) -> str:
    """A directory's name and a short hash of its config and of its files' sizes: which model this was."""
    digest = hashlib.sha256()
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(directory)} {file.stat().st_size}\n".encode())
    if (directory / "config.json").is_file():
        digest.update((directory / "config.json").read_bytes())
    return f"{directory.resolve().name}:{digest.hexdigest()[:16]}"


def _batches(pictures_THWC: Sequence[np.ndarray] | np.ndarray) -> Iterator[list[Image.Image]]:
    for start in range(0, len(pictures_THWC), _BATCH):
        yield [Image.fromarray(picture) for picture in pictures_THWC[start : start + _BATCH]]


def _centre(image: Image.Image, short: int, side: int) -> Image.Image:
    """The short side to `short`, then the square of `side` in the middle."""
    scale = short / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


def _config(directory: Path) -> dict:
    return _json(directory / "config.json")


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
