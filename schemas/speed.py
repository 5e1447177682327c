"""Options that trade memory, time and exactness: those of `stylecrafter.speed.SpeedOptions`, as a run's config."""

import json
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

_Skip = Annotated[int, Field(ge=1, le=1000)]
# Changes of rounding are left out, as those are that come with another device.
_CHANGES_PIXELS = ("vae_tiling", "fp8_weights", "attention_broadcast")


class SpeedSettings(BaseModel):
    """Memory and speed; what changes more than rounding is part of a video's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    help_metavars: ClassVar[dict[str, str]] = {"attention_broadcast": "N"}

    vae_slicing: bool = Field(False, description="decode one frame at a time: less memory")
    vae_tiling: bool = Field(
        False, description="decode large frames in overlapping tiles: less memory, other pixels at the seams"
    )
    channels_last: bool = Field(False, description="the memory format that GPU convolutions prefer")
    fp8_weights: bool = Field(
        False, description="UNet weights in 8 bits, widened layer by layer: half the memory, rounded weights"
    )
    attention_broadcast: tuple[_Skip, _Skip, _Skip] | None = Field(
        None,
        description="spatial, temporal and cross-attention are computed at every so many steps only: 2 4 6",
    )
    compile: bool = Field(
        False, description="torch.compile of the UNet; the first batch of a shape takes long"
    )
    cpu_offload: bool = Field(
        False,
        description="each model waits in main memory until it is its turn on the GPU: less memory, more time",
    )

    def renaming(self) -> dict[str, Any]:
        """What of it gives other pixels, and so belongs into a row_key; empty where nothing does."""
        changed = {name: value for name in _CHANGES_PIXELS if (value := getattr(self, name))}
        return {"speed": changed} if changed else {}

    def of_records(self) -> str | None:
        """The same as text for a record; None where there is none."""
        changed = self.renaming()
        return json.dumps(changed["speed"], sort_keys=True) if changed else None
