"""CLIP scores of rendered frames, as the paper defines them, with the model's own CLIP towers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from actors.assets import StyleImage
from actors.lru import LruCache
from stylecrafter.engines import RenderPipeline
from stylecrafter.metrics import (
    clip_image_embeddings,
    clip_style_score,
    clip_temp_score,
    clip_text_embeddings,
    clip_text_score,
)

# Shape suffixes: T frames, R references, P projection channels, H height, W width, C colours.

_CACHED_EMBEDDINGS = 4_096


@dataclass(frozen=True)
class Scores:
    """Raw cosine similarities in [-1, 1].

    `clip_temp` is None for a single frame, `clip_text` where the model's text tower is not its image tower's.
    """

    clip_text: float | None
    clip_style: float
    clip_temp: float | None
    clip_model: str

    def as_columns(self) -> dict[str, float | str | None]:
        return asdict(self)


class Scorer:
    """Scores videos against their prompt and references; embeds each distinct prompt and picture once.

    The full towers with their projections see CLIP's standard preprocessing. Not thread-safe on one device.
    """

    def __init__(self, pipeline: RenderPipeline, model_fingerprint: str):
        self._pipeline = pipeline
        self._has_one_clip = hasattr(pipeline.text_encoder, "text_projection")
        self._clip_model = f"model:{model_fingerprint[:16]}"
        self._texts: LruCache[torch.Tensor] = LruCache(_CACHED_EMBEDDINGS, name="scored_text")
        self._pictures: LruCache[torch.Tensor] = LruCache(_CACHED_EMBEDDINGS, name="scored_picture")

    @torch.inference_mode()
    def score(self, frames_THWC: np.ndarray, prompt: str, references: Sequence[StyleImage]) -> Scores:
        """CLIP-Text, CLIP-Style (mean over references) and CLIP-Temp of one video's uint8 RGB frames."""
        frames_TP = self._embed(frames_THWC)
        references_RP = torch.cat([self._picture(image) for image in references])
        return Scores(
            clip_text=clip_text_score(frames_TP, self._text(prompt)) if self._has_one_clip else None,
            clip_style=clip_style_score(frames_TP, references_RP),
            clip_temp=clip_temp_score(frames_TP),
            clip_model=self._clip_model,
        )

    def _embed(self, frames_THWC: np.ndarray) -> torch.Tensor:
        return clip_image_embeddings(
            self._pipeline.image_encoder, self._pipeline.feature_extractor, frames_THWC
        )

    def _picture(self, image: StyleImage) -> torch.Tensor:
        return self._pictures.get(image.sha256, lambda: self._embed(image.pixels[None]))

    def _text(self, prompt: str) -> torch.Tensor:
        encoder, tokenizer = self._pipeline.text_encoder, self._pipeline.tokenizer
        return self._texts.get(prompt, lambda: clip_text_embeddings(encoder, tokenizer, [prompt])[0])
