"""One manifest row: what a user asks for. The Parquet columns are the fields of `ManifestRow` and `meta_*`."""

import base64
import difflib
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from schemas.identity import canonical_json, digest
from schemas.manifest_row import MAX_ROW_ID_CHARS, ManifestRow, nfc

META_PREFIX = "meta_"
MAX_META_BYTES = 65_536
_NAMED_COLUMNS = 20
_REPORTED_VALUE_CHARS = 80
# A hostile value may be a gigabyte, or a list that holds itself a million times: it is never written out whole.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxlong, _BRIEF.maxother = 3, _REPORTED_VALUE_CHARS, 40, 80


class ManifestError(ValueError):
    """The manifest as a whole cannot be used (a required column is missing, a file is not Parquet)."""


class InvalidRowError(ValueError):
    """One row breaks the schema. `problems` holds one sentence per field: field, value, what is allowed."""

    def __init__(self, problems: list[str]):
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class UnreadableValue:
    """Stands for a value that its file holds but Python cannot: text that is not UTF-8, a year beyond 9999."""

    reason: str


REQUIRED_COLUMNS = ("prompt", "style_image_uri")
_COLUMN_TYPES: dict[str, pa.DataType] = {
    "prompt": pa.string(),
    "style_image_uri": pa.list_(pa.string()),
    "depth_video_uri": pa.string(),
    "row_id": pa.string(),
    "negative_prompt": pa.string(),
    "seed": pa.int64(),
    "num_frames": pa.int32(),
    "height": pa.int32(),
    "width": pa.int32(),
    "fps": pa.int32(),
    "num_inference_steps": pa.int32(),
    "text_guidance_scale": pa.float64(),
    "style_guidance_scale": pa.float64(),
    "style_scale": pa.float64(),
    "num_samples": pa.int32(),
    "priority": pa.int32(),
    "mode": pa.string(),
    "style_weights": pa.list_(pa.float64()),
    "style_mix": pa.float64(),
    "style_scale_structure": pa.float64(),
    "style_scale_texture": pa.float64(),
    "scheduler": pa.string(),
    "guidance_start": pa.float64(),
    "guidance_end": pa.float64(),
    "conditioning_fps": pa.float64(),
    "depth_normalization": pa.string(),
    "frame_window": pa.int32(),
}
COLUMNS = tuple(_COLUMN_TYPES)


def manifest_schema(columns: Sequence[str]) -> pa.Schema:
    """The Arrow schema of a manifest file with these columns; `meta_*` columns are text."""
    return pa.schema([pa.field(name, _COLUMN_TYPES.get(name, pa.string())) for name in columns])


def check_columns(names: Sequence[str]) -> list[str]:
    """Warnings about a manifest's column names.

    Raises:
        ManifestError: a required column is missing, or one of a row's columns stands twice.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1 and is_manifest_column(name)]:
        raise ManifestError(f"the manifest has the column {shorten(twice[0])} more than once")
    if missing := [name for name in REQUIRED_COLUMNS if name not in names]:
        there = ", ".join(map(shorten, names[:_NAMED_COLUMNS])) or "none"
        raise ManifestError(f"the manifest lacks the column {', '.join(map(repr, missing))}; it has {there}")
    unknown = [name for name in names if not is_manifest_column(name)]
    warnings = [_unknown_column(name) for name in unknown[:_NAMED_COLUMNS]]
    if more := len(unknown) - len(warnings):
        warnings.append(f"{more} more columns are no manifest columns and are ignored")
    return warnings


def is_manifest_column(column: str) -> bool:
    """Whether a row takes something from a column of this name."""
    return column in COLUMNS or column.startswith(META_PREFIX)


def _unknown_column(name: str) -> str:
    close = difflib.get_close_matches(name, COLUMNS, n=1)
    carried = shorten(f"{META_PREFIX}{name}")
    hint = f"did you mean {close[0]!r}?" if close else f"rename it to {carried} to carry it through"
    return f"column {shorten(name)} is not a manifest column and is ignored; {hint}"


def parse_row(raw: Mapping[str, Any]) -> ManifestRow:
    """A validated row from one raw Parquet row (null means absent; unknown columns are ignored).

    Raises:
        InvalidRowError: with one sentence per broken field.
    """
    values: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    unreadable: list[str] = []
    for name, value in raw.items():
        if isinstance(value, UnreadableValue):
            unreadable.append(f"{_shown(name)}: cannot be read: {value.reason}")
        elif value is not None and name in _COLUMN_TYPES:
            values[name] = value
        elif value is not None and name.startswith(META_PREFIX):
            meta[name] = value
    if unreadable:
        raise InvalidRowError(unreadable)
    if meta:
        values["meta"] = _meta_json(meta)
    try:
        return ManifestRow(**values)
    except ValidationError as error:
        raise InvalidRowError([_sentence(problem) for problem in error.errors(include_url=False)]) from None


def _meta_json(meta: Mapping[str, Any]) -> str:
    try:
        text = canonical_json({name: _plain_value(value) for name, value in meta.items()}).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRowError([f"meta_*: cannot be written as JSON: {error}"]) from None
    if len(text) > MAX_META_BYTES:
        raise InvalidRowError(
            [f"meta_*: {len(text)} characters of JSON; at most {MAX_META_BYTES} are allowed"]
        )
    return text


def _plain_value(value: Any) -> Any:
    """A Parquet value as JSON knows it: times as ISO text, decimals and bytes as text, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, str | int) else str(value)


def _sentence(problem: Mapping[str, Any]) -> str:
    field = ".".join(str(part) for part in problem["loc"]) or "row"
    if problem["type"] == "missing":
        return f"{field}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_unicode":
        message = "is not valid Unicode text"
    return f"{field} = {shorten(problem['input'])}: {message}"


def _shown(column: str) -> str:
    return column if column in COLUMNS else shorten(column)


def shorten(value: Any) -> str:
    """A value as text for an error message, cut to a readable length."""
    text = repr(value[:_REPORTED_VALUE_CHARS]) if isinstance(value, str | bytes) else _BRIEF.repr(value)
    return text if len(text) <= _REPORTED_VALUE_CHARS else text[: _REPORTED_VALUE_CHARS - 1] + "…"


def broken_row_id(raw: Mapping[str, Any]) -> str:
    """An id for a row that does not validate: its own if that is usable, else a hash of all it holds."""
    row_id = raw.get("row_id")
    if (
        isinstance(row_id, str)
        and row_id.strip()
        and len(row_id) <= MAX_ROW_ID_CHARS
        and row_id.isprintable()
    ):
        return nfc(row_id)  # as a good row's: two forms of one id must not end as one record
    return "x-" + digest({name: repr(value) for name, value in raw.items()}, 24)
