"""What the config of a UNet says about its layers and its inputs, without the UNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

DEPTH_EVERY = 3  # the published code counts blocks, not levels
STRUCTURE, TEXTURE = "structure", "texture"


def style_layer_groups(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Group of each style cross-attention, in the order of the fusion scales: down, middle, up.

    "structure" are the layers of the coarsest level with attention and of the middle, "texture" all finer
    ones. In text-to-image UNets of this family the coarse layers decide shapes and the fine ones
    appearance (Voynov et al. 2023, "P+", section 4).
    """
    levels = [level for level, kind in enumerate(config["down_block_types"]) if "CrossAttn" in kind]
    layers = config["layers_per_block"]
    of_layer = [level for level in levels for _ in range(layers)]
    of_layer.append(levels[-1])
    of_layer += [level for level in reversed(levels) for _ in range(layers + 1)]
    return tuple(STRUCTURE if level == levels[-1] else TEXTURE for level in of_layer)


def depth_feature_places(config: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """(channels, latent pixels along one side of its pixel) of each depth feature, in order.

    The published code adds one to the output of every third block on the way down, counted from the input's
    convolution: with two layers per level that is the last layer of each level.
    """
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    places = [(widths[0], 1)]
    for level, width in enumerate(widths):
        places += [(width, 2**level)] * layers
        if level < len(widths) - 1:
            places.append((width, 2 ** (level + 1)))
    return tuple(places[DEPTH_EVERY - 1 :: DEPTH_EVERY])


def check_latent_size(multiple: int, height: int, width: int) -> None:
    """Refuses latents that do not halve as often as the UNet halves them."""
    if height % multiple or width % multiple:
        raise ValueError(f"latent size is {height}x{width}; height and width must be multiples of {multiple}")


def check_depth_features(
    config: Mapping[str, Any], features: Sequence[torch.Tensor], frames: int, height: int, width: int
) -> None:
    """Refuses depth features that do not fit latents of this size, `frames` of all rows together."""
    expected = [(frames, c, height // s, width // s) for c, s in depth_feature_places(config)]
    found = [tuple(feature.shape) for feature in features]
    if found != expected:
        raise ValueError(f"depth features have shapes {found}; expected {expected}")
