"""Presets: one name for a sampler, its steps, guidance and options for speed.

They are chosen from the table of `benchmarks.quality_speed` (docs/performance.md).
"""

from types import MappingProxyType
from typing import Any, Literal, NamedTuple

Preset = Literal["quality", "fast"]


class PresetValues(NamedTuple):
    """What a preset gives to every row whose manifest and run say nothing themselves."""

    settings: MappingProxyType[str, Any]  # names of `RenderSettings`
    speed: MappingProxyType[str, Any]  # names of `SpeedSettings`


PRESETS: dict[Preset, PresetValues] = {
    # The model directory's own settings; for the published model that is DDIM with 50 steps.
    "quality": PresetValues(MappingProxyType({}), MappingProxyType({})),
    "fast": PresetValues(
        MappingProxyType({"scheduler": "unipc", "num_inference_steps": 8, "guidance_end": 0.75}),
        MappingProxyType({}),
    ),
}
