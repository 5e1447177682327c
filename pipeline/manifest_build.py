"""Checks the rows of a source and makes them a manifest. One broken row and no manifest is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.storage import Storage
from actors.uris import resolve
from pipeline.manifest_sources import SourceRow, cross_product, read_rows
from schemas.identity import canonical_json
from schemas.manifest import (
    COLUMNS,
    META_PREFIX,
    InvalidRowError,
    ManifestError,
    check_columns,
    manifest_schema,
    parse_row,
    shorten,
)
from schemas.manifest_row import ManifestRow
from schemas.manifest_run import ManifestRun

_MAX_REPORTED = 20


@dataclass(frozen=True)
class Manifest:
    """A checked manifest; `warnings` name columns that are not part of it."""

    table: pa.Table
    warnings: list[str]
    distinct_prompts: int
    distinct_styles: int


def build_manifest(run: ManifestRun, storage: Storage) -> Manifest:
    """The manifest that a run asks for. Local paths in it are absolute, or start with the run's style prefix.

    Raises:
        ManifestError: naming file, row, field and value of the first problems, and how many there are.
    """
    if run.source is not None:
        rows, source, folder = read_rows(storage, run.source), run.source, _folder_of(run.source)
    else:
        assert run.prompts is not None and run.styles is not None  # the config's own rule
        rows, source, folder = cross_product(storage, run.prompts, run.styles), run.prompts, run.styles
    return _build(source, rows, _absolute(folder), run)


def _absolute(folder: str) -> str:
    """The folder as a base for `resolve`."""
    return resolve(folder, f"{Path.cwd()}/").rstrip("/") + "/"


def _folder_of(file: str) -> str:
    return file.rpartition("/")[0] or ("/" if file.startswith("/") else ".")


def _build(source: str, rows: Iterable[SourceRow], folder: str, run: ManifestRun) -> Manifest:
    style_folder = folder if run.style_prefix is None else _absolute(run.style_prefix)
    problems = _Problems(source)
    names: dict[str, None] = {}
    row_ids: dict[str, tuple[str, ManifestRow]] = {}
    checked: list[dict[str, Any]] = []
    for row in islice(rows, run.limit):
        if row.problem is not None:
            problems.add(row.place, [row.problem])
            continue
        names.update(dict.fromkeys(row.values))
        values = _with_locations(_with_text_meta(row.values), folder, style_folder)
        try:
            parsed = parse_row(values)
        except InvalidRowError as error:
            problems.add(row.place, error.problems)
            continue
        if parsed.row_id is not None:
            place, first = row_ids.setdefault(parsed.row_id, (row.place, parsed))
            if _content(parsed) != _content(first):
                problems.add(
                    row.place,
                    [f"row_id = {shorten(parsed.row_id)}: names a different row at {place} already"],
                )
        checked.append(_written(values, parsed))
    warnings = _column_warnings(source, list(names)) if names else []
    problems.raise_any()
    if not checked:
        raise ManifestError(f"{source}: holds no row")
    return _manifest(checked, warnings)


def _column_warnings(source: str, names: list[str]) -> list[str]:
    try:
        return check_columns(names)
    except ManifestError as error:
        raise ManifestError(f"{source}: {error}") from None


def _content(row: ManifestRow) -> dict[str, Any]:
    """What tells two rows of one row_id apart: the same fields that tell a plan."""
    return row.model_dump(exclude={"meta", "priority", "num_samples"})


def _with_text_meta(values: dict[str, Any]) -> dict[str, Any]:
    """`meta_*` columns hold text; other JSON values are carried as their JSON."""
    return {
        name: canonical_json(value).decode("utf-8", errors="surrogatepass")
        if name.startswith(META_PREFIX) and value is not None and not isinstance(value, str)
        else value
        for name, value in values.items()
    }


def _with_locations(values: dict[str, Any], folder: str, style_folder: str) -> dict[str, Any]:
    located = dict(values)
    styles = values.get("style_image_uri")
    if isinstance(styles, str):
        styles = [styles]
    if isinstance(styles, list):
        located["style_image_uri"] = [_located(style, style_folder) for style in styles]
    if "depth_video_uri" in values:
        located["depth_video_uri"] = _located(values["depth_video_uri"], folder)
    return located


def _located(path: Any, folder: str) -> Any:
    """Leaves what is not a path as it is: the row's schema complains about it."""
    return resolve(path, folder) if isinstance(path, str) and path.strip() else path


def _written(values: dict[str, Any], parsed: ManifestRow) -> dict[str, Any]:
    """The row as the manifest holds it: typed values in the manifest's own columns, null where there was none."""
    row = {name: value for name, value in values.items() if name.startswith(META_PREFIX)}
    for name in COLUMNS:
        if name in values:
            row[name] = None if values[name] is None else getattr(parsed, name)
    return row


def _manifest(rows: list[dict[str, Any]], warnings: list[str]) -> Manifest:
    names = {name for row in rows for name in row}
    columns = [name for name in COLUMNS if name in names]
    columns += sorted(name for name in names if name.startswith(META_PREFIX))
    return Manifest(
        table=pa.Table.from_pylist(rows, schema=manifest_schema(columns)),
        warnings=warnings,
        distinct_prompts=len({row["prompt"] for row in rows}),
        distinct_styles=len({tuple(row["style_image_uri"]) for row in rows}),
    )


class _Problems:
    """Counts all problems and keeps the first ones."""

    def __init__(self, source: str):
        self._source = source
        self._first: list[str] = []
        self.count = 0

    def add(self, place: str, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.count += 1
            if self.count <= _MAX_REPORTED:
                self._first.append(f"{self._source}, {place}: {sentence}")

    def raise_any(self) -> None:
        if not self.count:
            return
        lines = [f"{self.count} problem{'s' if self.count > 1 else ''}; nothing was written", *self._first]
        if self.count > _MAX_REPORTED:
            lines.append(f"... and {self.count - _MAX_REPORTED} more")
        raise ManifestError("\n  ".join(lines))
