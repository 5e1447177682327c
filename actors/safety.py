"""Marks finished videos by a picture classifier of the user's own; it refuses none.

Shapes: T frames, H, W pixels, C = 3 colours, L labels; frames uint8, RGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from actors.storage import Storage
from schemas.run import UsageError
from schemas.safety import SafetySettings

_FRAMES = 8  # looked at, evenly over a video


@dataclass(frozen=True)
class SafetyVerdict:
    """What a record keeps.

    Attributes:
        score: the highest probability of an unsafe label in any frame looked at.
        label: that label.
        flagged: whether the score reaches the threshold.
    """

    score: float
    label: str
    flagged: bool

    def as_columns(self) -> dict[str, float | str | bool]:
        return {f"safety_{name}": value for name, value in vars(self).items()}


def load_safety_checker(storage: Storage, settings: SafetySettings, device: str) -> "SafetyChecker | None":
    """The checker that a run asks for; None where it asks for none.

    Raises:
        UsageError: it cannot be used.
    """
    if settings.model is None:
        return None
    folder = storage.local_copy(settings.model)
    return SafetyChecker(folder, settings.labels, settings.threshold, device)


class SafetyChecker:
    """A transformers image classifier. Not thread-safe on one device.

    Args:
        model_dir: with config.json, weights and preprocessor_config.json, local.
        labels: those that are unsafe, by the names in the model's `id2label`.
        threshold: probability from which on a video is marked.

    Raises:
        UsageError: the folder holds no classifier, or has no such label.
    """

    def __init__(self, model_dir: Path, labels: Sequence[str], threshold: float, device: str):
        try:
            self._processor = AutoImageProcessor.from_pretrained(model_dir)
            model = AutoModelForImageClassification.from_pretrained(model_dir, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise UsageError(f"safety.model: no transformers image classifier is there ({error})") from None
        self._model = model.to(device).eval()
        self._labels = list(labels)
        known = {name: index for index, name in model.config.id2label.items()}
        if unknown := [name for name in labels if name not in known]:
            raise UsageError(f"safety.labels = {unknown[0]!r}: the model's are {', '.join(known)}")
        self._indices = [int(known[name]) for name in labels]
        self._threshold = threshold

    @torch.inference_mode()
    def check(self, frames_THWC: np.ndarray) -> SafetyVerdict:
        """The verdict on one video or image."""
        count = len(frames_THWC)
        chosen = np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int))
        pictures = [Image.fromarray(frames_THWC[index]) for index in chosen]
        pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"].to(self._model.device)
        probabilities_TL = self._model(pixels).logits.softmax(dim=-1)[:, self._indices]
        highest_L = probabilities_TL.amax(dim=0).tolist()
        score = max(highest_L)
        return SafetyVerdict(score, self._labels[highest_L.index(score)], score >= self._threshold)
