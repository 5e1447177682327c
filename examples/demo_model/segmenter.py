"""Finds the object in a frame of the demo world: a small U-Net (Ronneberger et al. 2015) that learned from true stills.

It knows nothing of the model that it measures: it is trained from a seed on neutral and styled stills, roughened as
rendered frames are, and its own IoU on held-out true frames is measured with everything that it measures.

Shapes: N pictures, T frames, H, W pixels, C channels; frames uint8, RGB.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from examples.demo_world.dataset import LOOKS, Sample, clip, still
from examples.demo_world.scenes import DEPTHS

FILE = "segmenter.safetensors"
_SEED = 7301
_PICTURES = 1000  # of each look
_STEPS = 600
_BATCH = 32
_WIDTH = 8
_NOISE = 0.06  # of 1; what pixels of a rendered frame differ by at most
_CHUNK = 64


class Segmenter(nn.Module):
    """Pixels in [0, 1] [N, 3, H, W], H and W multiples of 4, -> logits [N, H, W] of belonging to the object."""

    def __init__(self, width: int = _WIDTH):
        super().__init__()
        w = width
        self.fine = nn.Sequential(_convolution(3, w), _convolution(w, w))
        self.middle = nn.Sequential(_convolution(w, 2 * w), _convolution(2 * w, 2 * w))
        self.coarse = nn.Sequential(_convolution(2 * w, 4 * w), _convolution(4 * w, 4 * w))
        self.middle_up = _convolution(6 * w, 2 * w)
        self.fine_up = _convolution(3 * w, w)
        self.out = nn.Conv2d(w, 1, 1)

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        fine = self.fine(pixels_NCHW - 0.5)
        middle = self.middle(F.max_pool2d(fine, 2))
        coarse = self.coarse(F.max_pool2d(middle, 2))
        middle = self.middle_up(torch.cat([middle, F.interpolate(coarse, scale_factor=2)], dim=1))
        fine = self.fine_up(torch.cat([fine, F.interpolate(middle, scale_factor=2)], dim=1))
        return self.out(fine)[:, 0]

    @torch.no_grad()
    def masks(self, frames_NTHWC: np.ndarray) -> np.ndarray:
        """Where the object is, bool [N, T, H, W]."""
        frames_MHWC = torch.from_numpy(frames_NTHWC.reshape(-1, *frames_NTHWC.shape[2:]))
        found = [self(_pixels(part)) > 0 for part in frames_MHWC.split(_CHUNK)]
        return torch.cat(found).numpy().reshape(frames_NTHWC.shape[:-1])


def true_masks(sample: Sample) -> np.ndarray:
    """Where the object of a drawn sample is, bool [T, H, W]."""
    return sample.depth_THW == DEPTHS["object"]


def load_or_train(folder: Path) -> Segmenter:
    """The segmenter of a folder; without one there, it is trained (about two minutes) and left there."""
    path = folder / FILE
    model = Segmenter()
    if path.is_file():
        model.load_state_dict(load_file(path))
    else:
        model = train()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), path)
    return model.eval()


def train(steps: int = _STEPS, pictures: int = _PICTURES) -> Segmenter:
    """A new one from the seed."""
    torch.manual_seed(_SEED)
    chance = torch.Generator().manual_seed(_SEED)
    samples = [still(_SEED, index, look=look) for look in LOOKS for index in range(pictures)]
    frames_NHWC = torch.from_numpy(np.concatenate([one.frames_THWC for one in samples]))
    masks_NHW = torch.from_numpy(np.concatenate([true_masks(one) for one in samples])).float()
    model = Segmenter().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(frames_NHWC), (_BATCH,), generator=chance)
        pixels_NCHW = _roughened(_pixels(frames_NHWC[chosen]), chance)
        loss = F.binary_cross_entropy_with_logits(model(pixels_NCHW), masks_NHW[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def iou(found_THW: np.ndarray, true_THW: np.ndarray) -> float:
    """Intersection over union of two masks, frame by frame, as their mean; 1 where both are empty."""
    both = (found_THW & true_THW).sum(axis=(1, 2))
    either = (found_THW | true_THW).sum(axis=(1, 2))
    return float(np.where(either, both / np.maximum(either, 1), 1.0).mean())


def own_iou(model: Segmenter, seed: int, count: int, look: str) -> float:
    """Of the segmenter on held-out true clips: no rendered clip can be expected to do better."""
    assert look in LOOKS
    samples = [clip(seed, index, split="held-out", look=look) for index in range(count)]
    found = model.masks(np.stack([one.frames_THWC for one in samples]))
    return float(np.mean([iou(a, true_masks(b)) for a, b in zip(found, samples, strict=True)]))


def _roughened(pixels_NCHW: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Half of the pictures softened, all of them noisy."""
    blurred = F.avg_pool2d(F.pad(pixels_NCHW, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    softened = torch.rand(len(pixels_NCHW), 1, 1, 1, generator=chance) < 0.5
    noise = torch.randn(pixels_NCHW.shape, generator=chance)
    return (torch.where(softened, blurred, pixels_NCHW) + _NOISE * noise).clamp(0, 1)


def _pixels(frames_NHWC: torch.Tensor) -> torch.Tensor:
    return frames_NHWC.permute(0, 3, 1, 2).float() / 255


def _convolution(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()
    )
