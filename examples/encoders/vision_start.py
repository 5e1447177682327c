"""A start for a CLIP vision tower from which it learns places sooner.

Position embeddings begin as sines and cosines of row and column, and queries and keys near the identity, so that
patches attend to their neighbours first ("Mimetic Initialization of Self-Attention Layers", Trockman and Kolter,
2023). From transformers' own start all patches attend to all alike, and a tower of this size spends most of a
short training on finding out which of them are neighbours.
"""

import torch
from transformers import CLIPModel

_POSITION_SCALE = 0.5
_SLOWEST_TURN = 30.0  # patches, over 2 pi
_IDENTITY = 0.5
_PATCH_DEVIATION = 192**-0.5  # keeps the scale of normalised pixels in patches of 8 x 8 x 3


@torch.no_grad()
def start_vision(clip: CLIPModel) -> None:
    """Sets the weights in place; the tower's width must be a multiple of 4."""
    vision = clip.vision_model
    config = clip.config.vision_config
    side = config.image_size // config.patch_size
    positions = _sines(side, config.hidden_size) * _POSITION_SCALE
    vision.embeddings.position_embedding.weight[1:] = positions
    torch.nn.init.normal_(vision.embeddings.patch_embedding.weight, std=_PATCH_DEVIATION)
    identity = torch.eye(config.hidden_size)
    for layer in vision.encoder.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.weight.mul_(_IDENTITY).add_(_IDENTITY * identity)


def _sines(side: int, channels: int) -> torch.Tensor:
    """[side * side, channels]: a quarter each for sine and cosine of column and row."""
    quarter = channels // 4
    turns = _SLOWEST_TURN ** -(torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float32),) * 2, indexing="ij")
    angles = [place.flatten()[:, None] * turns for place in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
