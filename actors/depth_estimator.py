"""Depth of every frame of a video, by a transformers depth estimation model of the user's own.

Shapes: T frames, H, W pixels, C = 3 colours; frames uint8, RGB.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from schemas.run import UsageError


class DepthEstimator:
    """A depth estimation model on one device.

    Args:
        model_dir: with config.json, weights and preprocessor_config.json, local.

    Raises:
        UsageError: the folder holds no such model.
    """

    def __init__(self, model_dir: Path, device: str, *, invert: bool = False, batch_size: int = 8):
        try:
            self._processor = AutoImageProcessor.from_pretrained(model_dir)
            model = AutoModelForDepthEstimation.from_pretrained(model_dir, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"depth_model: no transformers depth estimation model is there ({error})"
            ) from None
        self._model = model.to(device).eval()
        self._invert = invert
        self._batch_size = batch_size

    @torch.inference_mode()
    def depth(self, frames_THWC: np.ndarray) -> np.ndarray:
        """Depth of each frame in the frames' size, float16 [T, H, W] in [0, 1], larger is nearer.

        0 and 1 are the least and the most of the whole video, so that what moves nearer does so in the depth too.
        """
        found = []
        for start in range(0, len(frames_THWC), self._batch_size):
            pictures = [Image.fromarray(frame) for frame in frames_THWC[start : start + self._batch_size]]
            pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
            found.append(self._model(pixels.to(self._model.device)).predicted_depth.float().cpu())
        depth_1THW = torch.cat(found)[None]
        depth_1THW = F.interpolate(depth_1THW, frames_THWC.shape[1:3], mode="bilinear", align_corners=False)
        low, high = depth_1THW.min(), depth_1THW.max()
        near_1THW = (depth_1THW - low) / (high - low).clamp(min=1e-12)
        return (1 - near_1THW if self._invert else near_1THW)[0].half().numpy()
