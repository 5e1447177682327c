"""Classifiers that name what a clip shows and how it is drawn: shape, scene, motion, style family, palette class.

    judges = Judges.load()
    judges.names(frames_THWC)["shape"]

They learned from true clips of the demo world alone (`train_judges`), and judge generated ones; they are never
trained on those, nor changed after the model's style training has begun.

Shapes: N clips, T frames, H, W pixels, C = 3 colours, K values of a label; frames uint8, RGB.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from examples.demo_world.palettes import PALETTES
from examples.demo_world.shapes import SHAPES
from examples.demo_world.world import FAMILIES, MOTIONS, NEUTRAL_FAMILY, SCENES

WEIGHTS = Path(__file__).parent / "weights" / "judges"
SIZE_PX = 64
MOTION_FRAMES = 4

NO_MOTION = "none"

VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "scene": SCENES,
    "motion": (*MOTIONS, NO_MOTION),  # an object that only stands at the left does not move there
    "family": (*FAMILIES, NEUTRAL_FAMILY),  # a clip without any style is not to be counted for one
    "palette": PALETTES,
}
# Which labels a network tells. What is drawn, and in which strokes, is told whatever the colours are.
NETWORKS: dict[str, tuple[str, ...]] = {
    "drawing": ("shape", "scene", "family"),
    "palette": ("palette",),
    "motion": ("motion",),
}


class Network(nn.Module):
    """Convolutions, then one linear head per label on the mean and the maximum over the picture.

    Args:
        labels: names in VALUES.
        frames: frames that it sees at once, stacked as channels.
    """

    def __init__(self, labels: tuple[str, ...], frames: int = 1, width: int = 32):
        super().__init__()
        w = width
        self.features = nn.Sequential(
            _convolution(3 * frames, w, 2),
            _convolution(w, 2 * w, 2),
            _convolution(2 * w, 2 * w, 1),
            _convolution(2 * w, 3 * w, 2),
            _convolution(3 * w, 4 * w, 2),
        )
        self.dropout = nn.Dropout(0.2)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(_pooled_channels(name, 4 * w), len(VALUES[name])) for name in labels}
        )

    def forward(self, pixels_NCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pixels in [0, 1], SIZE_PX to a side -> logits [N, K] per label."""
        features_NCHW = self.features(pixels_NCHW - 0.5)
        pooled = torch.cat([features_NCHW.mean(dim=(2, 3)), features_NCHW.amax(dim=(2, 3))], dim=1)
        placed = features_NCHW.flatten(1)
        return {
            name: head(self.dropout(placed if name in _PLACED else pooled))
            for name, head in self.heads.items()
        }


# Where in the picture something is tells these: the horizon's place, the end of the object's way.
_PLACED = ("scene", "motion")


class Judges:
    """All networks. Their answers are functions of the clip's own frames.

    Args:
        networks: by the names in NETWORKS, trained.
    """

    def __init__(self, networks: Mapping[str, Network]):
        self._networks = {name: network.eval() for name, network in networks.items()}

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> "Judges":
        """From what `save` has written.

        Raises:
            ValueError: a network's file is not there.
        """
        networks = {}
        for name in NETWORKS:
            path = folder / f"{name}.safetensors"
            if not path.is_file():
                raise ValueError(f"folder is {str(folder)!r}; it must hold {path.name}")
            networks[name] = new_network(name)
            tensors = load_file(path)
            networks[name].load_state_dict(
                {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
            )
        return cls(networks)

    def save(self, folder: Path) -> None:
        """One safetensors file per network, half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, network in self._networks.items():
            tensors = {
                key: (value.half() if value.is_floating_point() else value).contiguous()
                for key, value in network.state_dict().items()
            }
            save_file(tensors, folder / f"{name}.safetensors")

    @torch.no_grad()
    def probabilities(self, frames_NTHWC: np.ndarray) -> dict[str, torch.Tensor]:
        """Per label, float32 [N, K] in the order of VALUES: of frames one by one, then their mean.

        Args:
            frames_NTHWC: uint8 RGB, square; other sides than SIZE_PX are scaled. A single frame has no motion:
                its answer to that means nothing.

        Raises:
            ValueError: not uint8 RGB clips.
        """
        if frames_NTHWC.dtype != np.uint8 or frames_NTHWC.ndim != 5 or frames_NTHWC.shape[-1] != 3:
            raise ValueError(
                f"frames are {frames_NTHWC.dtype} of shape {frames_NTHWC.shape}; allowed are uint8 NTHWC with 3 colours"
            )
        found: dict[str, list[torch.Tensor]] = {name: [] for name in VALUES}
        for start in range(0, len(frames_NTHWC), 16):
            pixels_NTCHW = to_pixels(frames_NTHWC[start : start + 16])
            for name, logits_NTK in self._logits(pixels_NTCHW):
                found[name].append(logits_NTK.softmax(-1).mean(1))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def names(self, frames_THWC: np.ndarray) -> dict[str, str]:
        """The likeliest value of each label of one clip."""
        found = self.probabilities(frames_THWC[None])
        return {name: VALUES[name][int(shares_NK[0].argmax())] for name, shares_NK in found.items()}

    def _logits(self, pixels_NTCHW: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        count, frames = pixels_NTCHW.shape[:2]
        found = []
        for key, network in self._networks.items():
            if key == "motion":
                stacked = motion_input(pixels_NTCHW)
                found += [(name, logits[:, None]) for name, logits in network(stacked).items()]
            else:
                by_frame = network(pixels_NTCHW.flatten(0, 1))
                found += [(name, logits.unflatten(0, (count, frames))) for name, logits in by_frame.items()]
        return found


def new_network(name: str) -> Network:
    """Untrained."""
    return Network(NETWORKS[name], frames=MOTION_FRAMES if name == "motion" else 1)


def to_pixels(frames_NTHWC: np.ndarray) -> torch.Tensor:
    """uint8 -> float [N, T, C, H, W] in [0, 1], SIZE_PX to a side."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames_NTHWC)).permute(0, 1, 4, 2, 3).float() / 255
    if pixels.shape[-2:] == (SIZE_PX, SIZE_PX):
        return pixels
    flat = F.interpolate(pixels.flatten(0, 1), (SIZE_PX, SIZE_PX), mode="bilinear", antialias=True)
    return flat.unflatten(0, pixels.shape[:2])


def motion_frames(frames: int) -> list[int]:
    """Which frames of a clip tell its motion: MOTION_FRAMES of them, from the first to the last."""
    return np.rint(np.linspace(0, frames - 1, MOTION_FRAMES)).astype(int).tolist()


def motion_input(pixels_NTCHW: torch.Tensor) -> torch.Tensor:
    """Those frames as channels [N, MOTION_FRAMES C, H, W]."""
    return pixels_NTCHW[:, motion_frames(pixels_NTCHW.shape[1])].flatten(1, 2)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _pooled_channels(label: str, channels: int) -> int:
    side = SIZE_PX // 2**4
    return channels * side**2 if label in _PLACED else 2 * channels
