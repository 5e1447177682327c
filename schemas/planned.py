"""One planned video: a validated row with everything resolved. Work units carry these to the render actors."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from schemas.identity import record_id
from schemas.record import RECORD_SCHEMA
from schemas.settings import SETTING_NAMES, RenderSettings


class Bucket(NamedTuple):
    """What rows have in common that can be denoised in one batch."""

    mode: str
    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    scheduler: str
    eta: float
    guidance: str
    guidance_start: float
    guidance_end: float
    frame_window: int | None
    with_conditioning_fps: bool
    with_depth: bool


class AssetRef(BaseModel):
    """A style image or depth video as it was seen when the run was planned."""

    model_config = ConfigDict(frozen=True)

    uri: str  # as the manifest has it
    location: str  # where it is read: a relative path is relative to the manifest's folder
    version: str  # ETag or content hash; a different one at fetch time means the asset changed
    size_bytes: int


class PlannedRow(BaseModel):
    """One video to be made, or found finished."""

    model_config = ConfigDict(frozen=True)

    row_id: str
    sample_index: int
    variant: str = ""
    row_key: str
    prompt: str
    style_images: list[AssetRef]
    depth_video: AssetRef | None = None
    seed: int
    priority: int = 0
    meta: str | None = None
    settings: RenderSettings

    @property
    def record_id(self) -> str:
        return record_id(self.row_id, self.sample_index, self.variant)

    @property
    def bucket(self) -> Bucket:
        """Rows of one bucket can be denoised in one batch."""
        s = self.settings
        return Bucket(
            mode=s.mode,
            num_frames=s.num_frames,
            height=s.height,
            width=s.width,
            num_inference_steps=s.num_inference_steps,
            scheduler=s.scheduler,
            eta=s.eta,
            guidance=s.guidance,
            guidance_start=s.guidance_start,
            guidance_end=s.guidance_end,
            frame_window=s.frame_window,
            with_conditioning_fps=s.conditioning_fps is not None,
            with_depth=self.depth_video is not None,
        )


_ASSET_TYPE = pa.struct(
    [
        pa.field("uri", pa.string()),
        pa.field("location", pa.string()),
        pa.field("version", pa.string()),
        pa.field("size_bytes", pa.int64()),
    ]
)
_SETTINGS_TYPE = pa.struct([RECORD_SCHEMA.field(name) for name in SETTING_NAMES])
_ROW_TYPE = pa.struct(
    [
        pa.field("row_id", pa.string()),
        pa.field("sample_index", pa.int32()),
        pa.field("variant", pa.string()),
        pa.field("row_key", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("style_images", pa.list_(_ASSET_TYPE)),
        pa.field("depth_video", _ASSET_TYPE),
        pa.field("seed", pa.int64()),
        pa.field("priority", pa.int32()),
        pa.field("meta", pa.string()),
        pa.field("settings", _SETTINGS_TYPE),
    ]
)

# One Parquet row per work unit: Ray Data hands whole units to an actor.
UNIT_SCHEMA = pa.schema([pa.field("unit_id", pa.int64()), pa.field("rows", pa.list_(_ROW_TYPE))])


def units_table(units: Iterable[tuple[int, list[PlannedRow]]]) -> pa.Table:
    """Work units as one table of `UNIT_SCHEMA`."""
    rows = [{"unit_id": unit_id, "rows": [row.model_dump() for row in rows]} for unit_id, rows in units]
    return pa.Table.from_pylist(rows, schema=UNIT_SCHEMA)


# What an actor hands back: one row per work unit, with the records of its rows, or why the whole run must end.
RESULT_SCHEMA = pa.schema(
    [
        pa.field("unit_id", pa.int64()),
        pa.field("records", pa.list_(pa.struct(RECORD_SCHEMA))),
        pa.field("left", pa.int64()),  # rows that were not begun, since the run's time was over
        pa.field("infrastructure_error", pa.string()),
        pa.field("internal_error", pa.string()),  # a traceback
    ]
)


def results_table(results: Iterable[dict[str, Any]]) -> pa.Table:
    """Outcomes of work units as one table of `RESULT_SCHEMA`; a field that one lacks is null."""
    return pa.Table.from_pylist(list(results), schema=RESULT_SCHEMA)


def unit_rows(rows: list[dict[str, Any]]) -> list[PlannedRow]:
    """The planned rows of one unit as read back from Parquet."""
    return [PlannedRow(**row) for row in rows]
