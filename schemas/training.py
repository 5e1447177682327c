"""The training manifest: one image or video with its caption per row. Parquet, columns as below and `meta_*`."""

from collections import Counter
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from schemas.manifest import META_PREFIX, ManifestError
from schemas.manifest_row import MAX_PROMPT_CHARS, MAX_URI_CHARS

Kind = Literal["image", "video"]
KINDS: tuple[Kind, ...] = ("image", "video")
REQUIRED_COLUMNS = ("uri", "caption")
COLUMNS = (*REQUIRED_COLUMNS, "style_id", "kind", "depth_uri")
IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
VIDEO_SUFFIXES = ("mp4", "m4v", "mov", "webm", "mkv", "avi", "ts")

# Long offsets: the text of some million rows does not fit 32-bit ones.
_TEXT = pa.large_string()
TRAINING_SCHEMA = pa.schema([pa.field(name, _TEXT) for name in COLUMNS])
_CONTROL_CHARACTERS = r"[\x00-\x1f\x7f]"


def check_training_schema(schema: pa.Schema) -> list[str]:
    """Warnings about a training manifest's columns.

    Raises:
        ManifestError: a required column is missing, or one has a type that cannot be used.
    """
    if missing := [name for name in REQUIRED_COLUMNS if name not in schema.names]:
        raise ManifestError(
            f"the training manifest lacks the column {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, schema.names))}"
        )
    for name in COLUMNS:
        if schema.names.count(name) > 1:
            raise ManifestError(f"column {name!r} is there {schema.names.count(name)} times; once is allowed")
        if name in schema.names:
            _check_type(name, schema.field(name).type)
    return [
        f"column {name!r} is not a column of a training manifest ({', '.join(COLUMNS)}) and is ignored"
        for name in schema.names
        if name not in COLUMNS and not name.startswith(META_PREFIX)
    ]


def _check_type(name: str, found: pa.DataType) -> None:
    value = found.value_type if pa.types.is_dictionary(found) else found
    is_text = pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)
    is_number = name == "style_id" and pa.types.is_integer(value)
    if not (is_text or is_number or pa.types.is_null(value)):
        allowed = "text or whole numbers" if name == "style_id" else "text"
        raise ManifestError(f"column {name!r} has the type {found}; it must hold {allowed}")


def usable_rows(table: pa.Table, needs_depth: bool = False) -> tuple[pa.Table, Counter[str]]:
    """The rows that can be used, as TRAINING_SCHEMA with every `kind` filled in, and why how many cannot.

    Args:
        table: columns that `check_training_schema` has accepted; others are dropped.
        needs_depth: rows without `depth_uri` cannot be used.
    """
    columns = {name: _text(table, name) for name in COLUMNS}
    uri, caption, style_id = columns["uri"], columns["caption"], columns["style_id"]
    depth_uri = columns["depth_uri"]
    kind = _kinds(uri, columns["kind"])
    checks = {
        "uri is missing": _blank(uri),
        **_uri_checks("uri", uri),
        **_uri_checks("depth_uri", depth_uri),
        "caption is missing": pc.is_null(caption),
        f"caption has more than {MAX_PROMPT_CHARS} characters": pc.greater(
            pc.utf8_length(caption), MAX_PROMPT_CHARS
        ),
        f"kind is not one of {', '.join(KINDS)}": pc.invert(pc.is_in(kind, pa.array([*KINDS, ""], _TEXT))),
        "kind is not given and cannot be told by the suffix": pc.equal(kind, ""),
    }
    if needs_depth:
        checks["depth_uri is missing"] = _blank(depth_uri)
    usable = pa.chunked_array([pa.repeat(True, table.num_rows)])
    skipped: Counter[str] = Counter()
    for reason, broken in checks.items():
        # A row counts once, for the first reason; null compares as null, and missing values have their own check.
        counted = pc.and_(usable, pc.fill_null(broken, False))
        if count := pc.sum(counted).as_py() or 0:
            skipped[reason] = count
        usable = pc.and_not(usable, counted)
    style_id, depth_uri = (
        pc.if_else(_blank(column), pa.scalar(None, _TEXT), column) for column in (style_id, depth_uri)
    )
    found = pa.table([uri, caption, style_id, kind, depth_uri], schema=TRAINING_SCHEMA)
    return found.filter(usable).combine_chunks(), skipped


def _uri_checks(name: str, column: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    return {
        f"{name} has more than {MAX_URI_CHARS} characters": pc.greater(pc.utf8_length(column), MAX_URI_CHARS),
        f"{name} holds a control character": pc.match_substring_regex(column, _CONTROL_CHARACTERS),
    }


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, _TEXT)])
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(_TEXT)


def _blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True)


def _kinds(uri: pa.ChunkedArray, given: pa.ChunkedArray) -> pa.ChunkedArray:
    """What is given, else what the suffix tells, else ""."""
    path = pc.utf8_lower(pc.replace_substring_regex(uri, r"^(https?://[^?#]*)[?#].*$", r"\1"))
    told = pc.if_else(
        _ends_with(path, IMAGE_SUFFIXES), "image", pc.if_else(_ends_with(path, VIDEO_SUFFIXES), "video", "")
    )
    given = pc.utf8_lower(pc.utf8_trim_whitespace(given))
    return pc.fill_null(pc.coalesce(given, told.cast(_TEXT)), "").cast(_TEXT)


def _ends_with(path: pa.ChunkedArray, suffixes: tuple[str, ...]) -> pa.ChunkedArray:
    return pc.match_substring_regex(path, rf"\.({'|'.join(suffixes)})$")
