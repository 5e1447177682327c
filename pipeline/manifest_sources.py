"""Where manifest rows come from: CSV, JSONL and JSON files, or every prompt with every style.

A source yields raw rows with the place each one stands at, so that a later complaint can name it.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from actors.storage import ObjectNotFound, Storage
from actors.uris import resolve
from schemas.manifest import ManifestError, shorten

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_MAX_SOURCE_BYTES = 2**30
_MAX_CELL_CHARS = 2**20
_LIST_SEPARATOR = ";"
_PUBLISHED_STYLE_NAME = "style_path"  # what the published evaluation lists call style_image_uri


class SourceRow(NamedTuple):
    """One row as its source has it; `problem` says why it could not be read at all."""

    place: str  # such as "line 7"
    values: dict[str, Any]
    problem: str | None = None


def read_rows(storage: Storage, uri: str) -> Iterator[SourceRow]:
    """The rows of a CSV, JSONL or JSON file, by its suffix.

    Raises:
        ManifestError: the file is missing, has another suffix, or cannot be read as what its suffix says.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in readers:
        raise ManifestError(f"{uri}: the suffix {suffix!r} is not one of {', '.join(readers)}")
    text = _read_text(storage, uri)
    try:
        for row in readers[suffix](text):
            yield row._replace(values=_renamed(row.values))
    except ManifestError as error:
        raise ManifestError(f"{uri}: {error}") from None


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    if _PUBLISHED_STYLE_NAME not in values or "style_image_uri" in values:
        return values
    return {("style_image_uri" if k == _PUBLISHED_STYLE_NAME else k): v for k, v in values.items()}


def _read_text(storage: Storage, uri: str) -> str:
    try:
        return storage.read_bytes(uri, max_bytes=_MAX_SOURCE_BYTES).decode("utf-8-sig")
    except ObjectNotFound:
        raise ManifestError(f"{uri}: not found") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{uri}: is not UTF-8 text (byte {error.start})") from None


def _csv_rows(text: str) -> Iterator[SourceRow]:
    records = _csv_records(text)
    _, header = next(records, (1, []))
    names = [name.strip() for name in header]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ManifestError(f"line 1: the column {repeated[0]!r} stands twice")
    for line, cells in records:
        if len(cells) == len(names):
            values = {name: cell or None for name, cell in zip(names, cells, strict=True)}
            yield _with_lists(f"line {line}", values)
        elif cells:  # a blank line is none
            problem = f"has {len(cells)} cells, but the header has {len(names)}"
            yield SourceRow(f"line {line}", {}, problem)


def _csv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each record starts at, since a quoted cell may span lines, and the record's cells."""
    csv.field_size_limit(_MAX_CELL_CHARS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"line {line}: is not valid CSV: {error}") from None


def _with_lists(place: str, values: dict[str, Any]) -> SourceRow:
    """Splits the references of a CSV row and their weights: a JSON list, or pieces between semicolons."""
    for name in ("style_image_uri", _PUBLISHED_STYLE_NAME, "style_weights"):
        cell = values.get(name)
        if cell is None:
            continue
        if cell.lstrip().startswith("["):
            try:
                values[name] = json.loads(cell)
            except ValueError as error:
                return SourceRow(place, values, f"{name} = {shorten(cell)}: is not a JSON list: {error}")
        else:
            values[name] = [piece.strip() for piece in cell.split(_LIST_SEPARATOR)]
    return SourceRow(place, values)


def _jsonl_rows(text: str) -> Iterator[SourceRow]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            value = _parse_json(line)
        except ValueError as error:
            yield SourceRow(f"line {number}", {}, f"is not valid JSON: {error}")
            continue
        yield _object_row(f"line {number}", value)


def _json_rows(text: str) -> Iterator[SourceRow]:
    try:
        rows = _parse_json(text)
    except ValueError as error:
        raise ManifestError(f"is not valid JSON: {error}") from None
    if not isinstance(rows, list):
        raise ManifestError(f"must hold a list of rows, not {shorten(rows)}")
    for number, value in enumerate(rows, start=1):
        yield _object_row(f"row {number}", value)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return values


def _object_row(place: str, value: Any) -> SourceRow:
    if not isinstance(value, dict):
        return SourceRow(place, {}, f"must be an object with the manifest's columns, not {shorten(value)}")
    return SourceRow(place, value)


def cross_product(storage: Storage, prompts_uri: str, styles_uri: str) -> Iterator[SourceRow]:
    """Every prompt with every style, prompt by prompt, styles in the order of their names.

    Style paths are relative to `styles_uri`; blank lines of the prompts file are skipped.

    Raises:
        ManifestError: no prompt, no picture, or a picture more than one folder deep.
    """
    prompts = [
        (number, line.strip())
        for number, line in enumerate(io.StringIO(_read_text(storage, prompts_uri)), start=1)
        if line.strip()
    ]
    if not prompts:
        raise ManifestError(f"{prompts_uri}: holds no prompt")
    styles = _styles(storage, styles_uri)
    for number, prompt in prompts:
        for name, pictures in styles.items():
            place = f"line {number} with style {name!r}"
            yield SourceRow(place, {"prompt": prompt, "style_image_uri": pictures})


def _styles(storage: Storage, uri: str) -> dict[str, list[str]]:
    """Style name -> its pictures: a file of its own is one style, a subfolder is one of several references."""
    root = resolve(uri, f"{Path.cwd()}/").rstrip("/") + "/"
    styles: dict[str, list[str]] = {}
    for stat in storage.list(uri):
        path = PurePosixPath(resolve(stat.uri, f"{Path.cwd()}/").removeprefix(root))
        if path.suffix.lower() not in PICTURE_SUFFIXES or any(part.startswith(".") for part in path.parts):
            continue
        if len(path.parts) > 2:
            raise ManifestError(
                f"{uri}: {str(path)!r} lies too deep; pictures lie in the folder itself (one style each) "
                "or in its subfolders (one style of several references each)"
            )
        styles.setdefault(path.parts[0], []).append(str(path))
    if not styles:
        raise ManifestError(f"{uri}: holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    return {name: sorted(styles[name]) for name in sorted(styles)}
