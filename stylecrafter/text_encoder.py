"""Token ids to the text embedding that the UNet attends to.

Shapes: B rows, S text tokens, E channels.
"""

from __future__ import annotations

import re

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from transformers import CLIPTextModelWithProjection

UNUSED_LAYERS = 1
"""Last layers of the tower that the embedding does not pass."""


@apply_forward_hook  # an offloaded encoder comes to the device for it
def text_embedding(encoder: CLIPTextModelWithProjection, ids_BS: torch.Tensor) -> torch.Tensor:
    """Token ids int64 -> [B, S, E]: the penultimate layer's output after the final norm, padding included."""
    text_model = encoder.text_model
    hidden = text_model(ids_BS, output_hidden_states=True).hidden_states
    return text_model.final_layer_norm(hidden[-1 - UNUSED_LAYERS])


def in_text_embedding(encoder: CLIPTextModelWithProjection, name: str) -> bool:
    """Whether the parameter of this name has a part in `text_embedding`; the rest serves CLIP scores only."""
    used = encoder.config.num_hidden_layers - UNUSED_LAYERS
    layer = re.match(r"text_model\.encoder\.layers\.(\d+)\.", name)
    return int(layer[1]) < used if layer else not name.startswith("text_projection.")
