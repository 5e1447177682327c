"""Reference images to CLIP image tokens.

Shapes: R references, H, W pixels, P vision tokens of one image (CLS and patches), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.utils.accelerate_utils import apply_forward_hook
from PIL import Image
from transformers import CLIPVisionModelWithProjection
from transformers.image_processing_base import ImageProcessingMixin

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class StyleImageProcessor(ImageProcessingMixin):
    """Pictures to CLIP input: `style` as published for references, `clip` as CLIP itself does for scores.

    Both give float32 [R, 3, size, size], normalised by `mean` and `std`. It needs no torchvision.

    Args:
        size: input side of the vision tower, pixels.
        reference_size: side to which a reference is resized and cropped first, pixels.
        mean, std: per channel, for values in [0, 1].
    """

    model_input_names = ("pixel_values",)

    def __init__(
        self,
        size: int = 224,
        reference_size: int = 512,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        **kwargs: object,
    ):
        super().__init__(**kwargs)
        self.size = size
        self.reference_size = reference_size
        self.mean = list(mean)
        self.std = list(std)

    def style(self, references: Sequence[Image.Image]) -> torch.Tensor:
        """Reference pictures of any size -> [R, 3, size, size], by the published steps.

        Short side to `reference_size` (bilinear), centre crop, then a smoothed bicubic reduction.
        """
        # One by one: what a picture needs on the way fits the processor's cache, and takes a third of the time.
        return torch.cat([self._style(image) for image in references])

    def _style(self, reference: Image.Image) -> torch.Tensor:
        cropped = _resize_and_crop(reference, self.reference_size, Image.Resampling.BILINEAR)
        pixels_13HW = _to_unit_tensor(cropped)[None] * 2 - 1
        return self._normalise((_reduce(pixels_13HW, self.size) + 1) / 2)

    def clip(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pictures of any size -> [R, 3, size, size]: short side by bicubic, centre crop."""
        cropped = [_resize_and_crop(image, self.size, Image.Resampling.BICUBIC) for image in images]
        return self._normalise(torch.stack([_to_unit_tensor(image) for image in cropped]))

    def _normalise(self, pixels_R3HW: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (self.mean, self.std))
        return (pixels_R3HW - mean) / std


def _resize_and_crop(image: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    image = image.convert("RGB")
    short = min(image.size)
    # The long side is truncated, not rounded: one pixel more would shift the crop.
    width, height = (side if length == short else int(side * length / short) for length in image.size)
    image = image.resize((width, height), resample)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _to_unit_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _reduce(pixels_R3HW: torch.Tensor, size: int) -> torch.Tensor:
    """Gaussian blur, then bicubic with aligned corners, without clamping (FACTS, section 4)."""
    factor = pixels_R3HW.shape[-1] / size
    sigma = max((factor - 1) / 2, 0.001)
    # Two sigmas to each side, at least 3 taps, an odd number of them.
    taps = int(max(4 * sigma, 3)) | 1
    offset = torch.arange(taps, dtype=torch.float32) - taps // 2
    kernel = torch.softmax(-(offset**2) / (2 * sigma**2), dim=0)
    padded = F.pad(pixels_R3HW, (taps // 2,) * 4, mode="reflect")
    blurred = _weighted_sum(_weighted_sum(padded, kernel, dim=3), kernel, dim=2)
    return F.interpolate(blurred, size=(size, size), mode="bicubic", align_corners=True)


def _weighted_sum(pixels_R3HW: torch.Tensor, kernel: torch.Tensor, dim: int) -> torch.Tensor:
    """Convolution along one dimension, without padding.

    Sums of shifted pictures: on the CPU a tenth of the time that `conv2d` takes for so few channels.
    """
    length = pixels_R3HW.shape[dim] - len(kernel) + 1
    first, *others = kernel.tolist()
    total = pixels_R3HW.narrow(dim, 0, length) * first
    for shift, weight in enumerate(others, 1):
        total.add_(pixels_R3HW.narrow(dim, shift, length), alpha=weight)
    return total


@apply_forward_hook  # an offloaded encoder comes to the device for it
def image_tokens(
    encoder: CLIPVisionModelWithProjection, pixels_R3HW: torch.Tensor, round_to_half: bool = False
) -> torch.Tensor:
    """CLIP tokens of preprocessed references [R, P, C]: the normalised CLS, then the patches as they are.

    Args:
        encoder: the vision tower; its projection is not used here.
        pixels_R3HW: from `StyleImageProcessor.style`.
        round_to_half: round to float16 and back, as the published inference code does.
    """
    weight = encoder.visual_projection.weight
    output = encoder.vision_model(pixels_R3HW.to(weight.device, weight.dtype))
    tokens_RPC = torch.cat([output.pooler_output[:, None], output.last_hidden_state[:, 1:]], dim=1)
    return tokens_RPC.half().to(weight.dtype) if round_to_half else tokens_RPC
