"""Complete output records, for success and failure alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actors.storage import redact
from schemas.identity import KEY_VERSION, canonical_json, record_id
from schemas.planned import PlannedRow
from schemas.record import RECORD_SCHEMA, SCHEMA_VERSION, RowError, Status

Record = dict[str, Any]  # one row of RECORD_SCHEMA
_TEXT_COLUMNS = ("prompt", "depth_video_uri", "negative_prompt", "mode")
_EMPTY: Record = dict.fromkeys(RECORD_SCHEMA.names)
_MAX_ERROR_CHARS = 2_000
_MAX_ECHO_CHARS = 500  # of a broken row's text that its record repeats


@dataclass(frozen=True)
class Provenance:
    """What all records of one run share."""

    run_id: str
    code_version: str
    model_fingerprint: str
    model_trained: bool
    engine: str
    dtype: str
    render_epoch: int
    speed: str | None = None  # see `SpeedSettings.of_records`


def finished_record(row: PlannedRow, provenance: Provenance, **outcome: Any) -> Record:
    """The record of a planned row; `outcome` fills the columns that the row does not."""
    return _complete(
        {
            "row_id": row.row_id,
            "row_key": row.row_key,
            "record_id": row.record_id,
            "sample_index": row.sample_index,
            "variant": row.variant,
            "prompt": row.prompt,
            "style_image_uri": [redact(asset.uri) for asset in row.style_images],
            "depth_video_uri": row.depth_video and redact(row.depth_video.uri),
            **row.settings.model_dump(),
            "seed": row.seed,
            "priority": row.priority,
            "meta": row.meta,
            "attempts": 1,
            **outcome,
        },
        provenance,
    )


def failed_record(row: PlannedRow, provenance: Provenance, error: RowError, **outcome: Any) -> Record:
    """The record of a planned row that could not be rendered."""
    return finished_record(row, provenance, **_failure(error), **outcome)


def broken_record(raw: Mapping[str, Any], row_id: str, provenance: Provenance, error: RowError) -> Record:
    """The record of a manifest row that cannot be planned; of its content, only plain text is repeated."""
    texts = {name: _echo(raw[name]) for name in _TEXT_COLUMNS if isinstance(raw.get(name), str)}
    return _complete(
        {
            **texts,
            "row_id": row_id,
            "record_id": record_id(row_id, 0),
            "sample_index": 0,
            "variant": "",
            "style_image_uri": _uris(raw.get("style_image_uri")),
            "attempts": 0,
            **_failure(error),
        },
        provenance,
    )


def identity_comment(row: PlannedRow, provenance: Provenance) -> str:
    """What a published file says of itself in its metadata, as JSON: enough to find its record, and no content.

    Of rows that share a video, it names the one that was rendered.
    """
    return canonical_json(
        {
            "software": "StyleCrafter Batch",
            "code_version": provenance.code_version,
            "run_id": provenance.run_id,
            "row_id": row.row_id,
            "sample_index": row.sample_index,
            "variant": row.variant,
            "row_key": row.row_key,
            "seed": row.seed,
            "model_fingerprint": provenance.model_fingerprint,
        }
    ).decode()


def copied_record(row: PlannedRow, source: Mapping[str, Any]) -> Record:
    """The record of a row whose video another record has: that record's outcome and provenance, this row's identity."""
    own = {
        "row_id": row.row_id,
        "record_id": row.record_id,
        "sample_index": row.sample_index,
        "variant": row.variant,
        "priority": row.priority,
        "meta": row.meta,
    }
    return {**source, **own}


def _failure(error: RowError) -> dict[str, Any]:
    return {
        "status": error.status,
        "error_class": error.error_class,
        "error": _storable(redact(error.message)[:_MAX_ERROR_CHARS]),
    }


def _uris(value: Any) -> list[str] | None:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        return None
    return [redact(_echo(item)) for item in values if isinstance(item, str)]


def _echo(text: str) -> str:
    return _storable(text[:_MAX_ECHO_CHARS])


def _storable(text: str) -> str:
    """What JSON and Parquet can hold: halves of surrogate pairs, which are no text, become question marks."""
    return text.encode(errors="replace").decode()


def _complete(values: dict[str, Any], provenance: Provenance) -> dict[str, Any]:
    shared = {
        **vars(provenance),
        "status": Status.OK,
        "key_version": KEY_VERSION,
        "schema_version": SCHEMA_VERSION,
        "finished_at": datetime.now(UTC),
    }
    return _EMPTY | shared | values
