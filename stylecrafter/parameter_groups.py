"""The parts of a model whose parameters a training stage trains or leaves alone.

Names are those of `TrainingModel`: component, dot, name in the component.
"""

from __future__ import annotations

from dataclasses import dataclass

from stylecrafter.key_maps import is_temporal

ADAPTER_GROUPS = ("adapter.style_transformer", "adapter.style_kv", "adapter.scale_predictor")
GROUPS = (
    "text_encoder",
    "image_encoder",
    "vae",
    "unet.spatial",
    "unet.temporal",
    *ADAPTER_GROUPS,
    "depth_adapter",
)
GROUPS_OF_STAGE = {
    "base": ("unet.spatial", "unet.temporal"),
    "style": ADAPTER_GROUPS,
    "temporal": ("unet.temporal",),
    "joint": ("unet.temporal", *ADAPTER_GROUPS),
    "depth": ("depth_adapter",),
}


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters of one part of the model, and how many of them a stage trains."""

    name: str
    total: int
    trainable: int


def group_of(name: str) -> str:
    """The group of the parameter of this name; style projections with their norms are `adapter.style_kv`."""
    component, _, rest = name.partition(".")
    if component == "unet":
        return "unet.temporal" if is_temporal(rest) else "unet.spatial"
    if component != "style_adapter":
        assert component in GROUPS, name
        return component
    if rest.startswith("layers."):
        return "adapter.style_kv"
    return "adapter.scale_predictor" if rest.startswith("scale_") else "adapter.style_transformer"
