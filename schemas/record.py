"""One output record: the same Arrow schema for success and failure."""

from enum import StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1


class Status(StrEnum):
    OK = "ok"
    INVALID = "invalid"  # the manifest row itself cannot be rendered, whatever happens around it
    FAILED = "failed"  # a good row that could not be rendered; `jobs.retry` may try again
    QUARANTINED = "quarantined"  # a row that kills the process that renders it


class ErrorClass(StrEnum):
    """Why a record is not ok. Stable names: reports and `jobs.retry` filter by them."""

    INVALID_ROW = "invalid_row"
    MANIFEST_UNREADABLE = "manifest_unreadable"  # a manifest file, or its rest, stands for all rows in it
    DUPLICATE_ROW_ID = "duplicate_row_id"
    DEPTH_UNSUPPORTED = "depth_unsupported"
    MODE_UNSUPPORTED = "mode_unsupported"
    URI_FORBIDDEN = "uri_forbidden"
    ASSET_NOT_FOUND = "asset_not_found"
    ASSET_FORBIDDEN = "asset_forbidden"
    ASSET_UNAVAILABLE = "asset_unavailable"
    ASSET_TIMEOUT = "asset_timeout"
    ASSET_TOO_LARGE = "asset_too_large"
    ASSET_UNDECODABLE = "asset_undecodable"
    ASSET_CHANGED = "asset_changed"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    ENCODE_FAILED = "encode_failed"
    RENDER_FAILED = "render_failed"
    # Of quarantined rows: how the process that rendered the row ended, again and again.
    PROCESS_DIED = "process_died"
    NODE_DIED = "node_died"
    DEVICE_FAILED = "device_failed"
    RENDER_TIMEOUT = "render_timeout"


class RowError(Exception):
    """A failure that belongs to one row: it becomes that row's record, and the run goes on."""

    def __init__(self, error_class: ErrorClass, message: str, status: Status = Status.FAILED):
        super().__init__(message)
        self.error_class = error_class
        self.message = message
        self.status = status


TIMING_NAMES = ("fetch_s", "condition_s", "denoise_s", "decode_s", "score_s", "encode_s", "upload_s")

RECORD_SCHEMA = pa.schema(
    [
        # identity
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("row_key", pa.string()),  # null where a row is too broken to have one
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("sample_index", pa.int32(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        # what was asked
        pa.field("prompt", pa.string()),
        pa.field("style_image_uri", pa.list_(pa.string())),
        pa.field("depth_video_uri", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("num_frames", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("fps", pa.int32()),
        pa.field("num_inference_steps", pa.int32()),
        pa.field("text_guidance_scale", pa.float64()),
        pa.field("style_guidance_scale", pa.float64()),
        pa.field("style_scale", pa.float64()),
        pa.field("negative_prompt", pa.string()),
        pa.field("eta", pa.float64()),
        pa.field("guidance", pa.string()),
        pa.field("crf", pa.int32()),
        pa.field("seed", pa.int64()),
        pa.field("priority", pa.int32()),
        pa.field("meta", pa.string()),  # the manifest's meta_* columns as one JSON object
        # what happened
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_class", pa.string()),
        pa.field("error", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        # what came out
        pa.field("video_uri", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("duration_s", pa.float64()),
        pa.field("style_image_sha256", pa.list_(pa.string())),
        pa.field("clip_text", pa.float64()),
        pa.field("clip_style", pa.float64()),  # mean over several references
        pa.field("clip_temp", pa.float64()),
        pa.field("clip_model", pa.string()),
        pa.field("fusion_scales", pa.list_(pa.float32())),  # one per style cross-attention: 1 + tanh(.)
        pa.field("timings", pa.struct([pa.field(name, pa.float64()) for name in TIMING_NAMES])),
        # where it came from
        pa.field("model_fingerprint", pa.string()),
        pa.field("model_trained", pa.bool_()),  # false: a randomly initialised demo model
        pa.field("engine", pa.string()),
        pa.field("dtype", pa.string()),
        pa.field("code_version", pa.string()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("key_version", pa.int32(), nullable=False),
        pa.field("render_epoch", pa.int32(), nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("node", pa.string()),
        pa.field("device", pa.string()),
        pa.field("finished_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        # added later, so that older readers find the columns above where they were
        pa.field("style_weights", pa.list_(pa.float64())),
        pa.field("style_mix", pa.float64()),
        pa.field("style_scale_structure", pa.float64()),
        pa.field("style_scale_texture", pa.float64()),
        pa.field("scheduler", pa.string()),
        pa.field("guidance_start", pa.float64()),
        pa.field("guidance_end", pa.float64()),
        pa.field("conditioning_fps", pa.float64()),
        pa.field("depth_normalization", pa.string()),
        pa.field("depth_video_sha256", pa.string()),
        pa.field("speed", pa.string()),  # the run's options that trade exactness, as JSON; null: none
        pa.field("image_format", pa.string()),  # of an image; null where there was PNG alone
        pa.field("jpeg_quality", pa.int32()),
        pa.field("frame_window", pa.int32()),
        pa.field("safety_score", pa.float64()),  # null where nothing was checked
        pa.field("safety_label", pa.string()),
        pa.field("safety_flagged", pa.bool_()),
    ]
)


def records_table(records: list[dict[str, Any]]) -> pa.Table:
    """Records as one table of `RECORD_SCHEMA`; a field that a record lacks is null.

    Raises:
        ValueError: a record has a field that the schema does not know.
    """
    known = set(RECORD_SCHEMA.names)
    for record in records:
        if unknown := record.keys() - known:
            raise ValueError(f"record {record.get('row_id')!r} has unknown fields {sorted(unknown)}")
    return pa.Table.from_pylist(records, schema=RECORD_SCHEMA)
