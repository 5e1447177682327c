"""The rows of a report as the page's script reads them: columns, with what repeats kept once."""

import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from urllib.parse import quote

from actors.uris import absolute_path, is_local, redact, scheme_of
from pipeline.finished import FinishedOutput
from pipeline.report_numbers import DEVICE_STAGES, SCORES
from schemas.identity import media_path, media_suffix
from schemas.record import TIMING_NAMES, Status
from schemas.settings import SETTING_NAMES

PAGE_ROWS = 24
_DIGITS = 5
_STATUSES = [status.value for status in Status]
# What a row has a number for -> where the script finds the values.
_REPEATED = {
    "errorClass": "errorClasses",
    "error": "errors",
    "prompt": "prompts",
    "style": "styles",
    "settings": "settings",
    "meta": "metas",
    "variant": "variants",
    "run": "runs",
    "place": "places",
}


class _Once:
    """Values that repeat, each kept once and named by its number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable, value: Callable[[], Any] | None = None) -> int | None:
        """The number of a value (by default the key itself); None for the key None."""
        if key is None:
            return None
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value() if value else key)
        return self._numbers[key]


class _Rows:
    """Columns of the listed records."""

    def __init__(self, output: FinishedOutput, config: dict[str, Any], thumbs: dict[str, str]):
        self._output = output
        self._config = config
        self._thumbs = {uri: number for number, uri in enumerate(thumbs)}
        self._once = {name: _Once() for name in _REPEATED}
        self._columns: dict[str, list[Any]] = {name: [] for name in ("id", "status", "errorClass")}

    def add(self, record: dict[str, Any]) -> None:
        for name, value in (self._repeated(record) | _own(record)).items():
            self._columns.setdefault(name, []).append(value)

    def as_json(self) -> dict[str, Any]:
        return {"rows": self._columns} | {_REPEATED[name]: once.values for name, once in self._once.items()}

    def _repeated(self, record: dict[str, Any]) -> dict[str, int | None]:
        uris = tuple(record["style_image_uri"] or ())
        settings = {name: record[name] for name in SETTING_NAMES if record[name] is not None}
        once = self._once
        return {
            "errorClass": once["errorClass"].number(record["error_class"]),
            "error": once["error"].number(record["error"]),
            "prompt": once["prompt"].number(record["prompt"]),
            "style": once["style"].number(uris, lambda: [self._style(uri) for uri in uris]),
            "settings": once["settings"].number(repr(settings), lambda: settings),
            "meta": once["meta"].number(record["meta"]),
            "variant": once["variant"].number(record["variant"] or None),
            "run": once["run"].number(record["run_id"]),
            "place": once["place"].number(_place(record)),
        }

    def _style(self, uri: str) -> dict[str, Any]:
        return {
            "uri": redact(uri),
            "name": style_name(uri),
            "thumb": self._thumbs.get(uri),
            "href": _link(self._output, self._output.asset_uri(uri, self._config)),
        }


def page_data(
    output: FinishedOutput, records: Sequence[dict[str, Any]], config: dict[str, Any], thumbs: dict[str, str]
) -> dict[str, Any]:
    """What the script needs, as JSON values.

    Args:
        thumbs: data URIs of style pictures, by the URI that records have.
    """
    rows = _Rows(output, config, thumbs)
    for record in records:
        rows.add(record)
    return rows.as_json() | {
        "pageSize": PAGE_ROWS,
        "scores": [{"name": name, "label": label} for name, label in SCORES.items()],
        "stages": [name.removesuffix("_s") for name in TIMING_NAMES],
        "output": redact(output.uri),
        "statuses": _STATUSES,
        "thumbs": list(thumbs.values()),
    }


def style_name(uri: str) -> str:
    """A style picture's file name."""
    return redact(uri).split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1]


def _own(record: dict[str, Any]) -> dict[str, Any]:
    timings = record["timings"] or {}
    return {
        "id": record["row_id"],
        "sample": record["sample_index"],
        "status": _STATUSES.index(record["status"]),
        # 63 bits are more than a JavaScript number holds.
        "seed": None if record["seed"] is None else str(record["seed"]),
        "video": _video(record),
        "commit": f"../commits/{record['record_id'][:2]}/{record['record_id']}.json",
        "bytes": record["size_bytes"],
        "attempts": record["attempts"],
        "finished": int(record["finished_at"].timestamp() * 1000),
        "fusion": _mean(record["fusion_scales"]),
        "device_s": _rounded(sum(timings.get(name) or 0.0 for name in DEVICE_STAGES) or None),
        "timings": [_rounded(timings.get(name)) for name in TIMING_NAMES] if timings else None,
        **{name: _rounded(record[name]) for name in SCORES},
    }


def _video(record: dict[str, Any]) -> str | None:
    return (
        f"../{media_path(record['row_key'], media_suffix(record['mode'], record['image_format']))}"
        if record["status"] == Status.OK and record["video_uri"]
        else None
    )


def _link(output: FinishedOutput, location: str) -> str | None:
    """Where a browser finds an object from run/: never a scheme that it would carry out."""
    if scheme_of(location) in {"http", "https"}:
        return redact(location)
    if is_local(location) and is_local(output.uri):
        try:
            path = os.path.relpath(absolute_path(location), f"{absolute_path(output.uri)}/run")
        except ValueError:
            return None
        return quote(path.encode(errors="surrogateescape"))
    return None


def _place(record: dict[str, Any]) -> str | None:
    return f"{record['node']}, {record['device']}" if record["node"] else "planned only"


def _mean(values: list[float] | None) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def _rounded(value: float | None) -> float | None:
    """What JSON can hold, and no more digits than anyone reads."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return round(value, _DIGITS)
