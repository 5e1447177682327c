"""The morning report: one HTML page that says what was made, how good it is, what failed and what it cost."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np

from actors.storage import Storage, join, redact
from pipeline import report_figures as figures
from pipeline.finished import FinishedOutput, open_output
from pipeline.page import PAGES, render_page
from pipeline.present import UNTRAINED_NOTE
from pipeline.report_evaluation import evaluation_section
from pipeline.report_numbers import SCORES, ReportNumbers, Timeline
from pipeline.report_rows import page_data
from pipeline.report_thumbnails import thumbnails
from schemas.record import RECORD_SCHEMA, Status
from schemas.run import FetchLimits

_DEFAULT_ROWS = 10_000
_STATUS_LABELS = {
    Status.OK: "made",
    Status.FAILED: "failed",
    Status.INVALID: "invalid",
    Status.QUARANTINED: "quarantined",
}
_VERSIONS = (
    "model_fingerprint", "model_trained", "engine", "dtype", "code_version", "clip_model", "key_version",
    "render_epoch", "schema_version",
)  # fmt: skip


def write_report(storage: Storage, output: str, max_rows: int = _DEFAULT_ROWS) -> str:
    """Writes `run/report.html` of a finished output; its URI.

    Args:
        max_rows: rows that the page lists. Of more, it lists failed, worst, slowest ones and an even choice;
            the numbers are always those of all.

    Raises:
        UsageError: there are no records.
        InfrastructureError: they cannot be read.
    """
    finished = open_output(storage, output)
    uri = join(finished.uri, "run", "report.html")
    storage.write_bytes(uri, report_html(finished, max_rows).encode())
    return uri


def report_html(output: FinishedOutput, max_rows: int = _DEFAULT_ROWS) -> str:
    """The page."""
    numbers = ReportNumbers(output)
    config, summary = output.run_json("config.json"), output.run_json("summary.json")
    runs = numbers.runs()
    with_videos = [run for run in runs if run["videos"]]
    timeline = None
    if with_videos:
        run_id = max(with_videos, key=lambda run: run["last_s"])["run_id"]
        timeline = numbers.timeline(_plan_of(output, run_id).get("actors"), run_id)
    listed = numbers.to_list(max_rows)
    records = output.take(listed)
    uris = (
        uri for record in records if record["status"] == Status.OK for uri in record["style_image_uri"] or ()
    )
    pictures = thumbnails(output, uris, config, FetchLimits.model_validate(config.get("limits") or {}))
    script = (PAGES / "report.js").read_text(encoding="utf-8")
    return render_page(
        "report.html",
        ("base.css", "report.css"),
        script,
        page_data(output, records, config, pictures),
        title="/".join(redact(output.uri).rstrip("/").split("/")[-2:]),
        subtitle=_subtitle(numbers, config, runs),
        notes=_notes(records, summary),
        headline=_headline(numbers, summary),
        statuses=_statuses(numbers, summary),
        tiles=_tiles(numbers, timeline, _cost(output, timeline, config, summary)),
        errors=_errors(numbers, output),
        histograms=_histograms(numbers),
        evaluation=evaluation_section(output),
        timeline=_timeline(timeline),
        runs=[_run(run) for run in runs],
        rows_note=_rows_note(numbers, len(listed)),
        versions=_versions(records),
        files=_files(output, records),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        output=redact(output.uri),
    )


def _plan_of(output: FinishedOutput, run_id: str) -> dict[str, Any]:
    return output.run_json(run_id, "plan.json") or output.run_json("plan.json")


def _subtitle(numbers: ReportNumbers, config: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    parts = [f"{len(runs)} run{'' if len(runs) == 1 else 's'}"]
    if len(numbers.finished_s):
        parts.append(f"last record {_utc(numbers.finished_s.max())}")
    if config.get("manifest"):
        parts.append(f"manifest {redact(str(config['manifest']))}")
    return ", ".join(parts)


def _notes(records: list[dict[str, Any]], summary: dict[str, Any]) -> list[str]:
    notes = [UNTRAINED_NOTE] if any(record["model_trained"] is False for record in records) else []
    if summary.get("missing"):
        notes.append(
            f"{summary['missing']} records are not finished; the same command of jobs.render continues."
        )
    for kind, count in (summary.get("problems") or {}).items():
        notes.append(f"{count} {str(kind).replace('_', ' ')}: run jobs.reconcile.")
    return notes


def _headline(numbers: ReportNumbers, summary: dict[str, Any]) -> str:
    asked = numbers.records + int(summary.get("missing") or 0)
    made = int(numbers.ok.sum())
    if asked and made == asked:
        return f"All {asked:,} videos are made"
    return f"{made:,} of {asked:,} videos are made"


def _statuses(numbers: ReportNumbers, summary: dict[str, Any]) -> list[dict[str, Any]]:
    counts: dict[str, int] = numbers.statuses()
    if summary.get("missing"):
        counts["missing"] = summary["missing"]
    total = sum(counts.values())
    return [
        {
            "name": name,
            "label": _STATUS_LABELS.get(name, "not finished"),  # type: ignore[call-overload]
            "count": count,
            "text": f"{count:,} ({100 * count / total:.1f} %)",
        }
        for name, count in counts.items()
    ]


def _tiles(
    numbers: ReportNumbers, timeline: Timeline | None, cost: dict[str, str] | None
) -> list[dict[str, str]]:
    tiles = []
    for name, label in SCORES.items():
        if found := numbers.quantiles(name):
            low, middle, high = found
            tiles.append(_tile(label, f"{middle:.4f}", f"median; 5 to 95 %: {low:.4f} to {high:.4f}"))
    if timeline is not None:
        rate = timeline.videos.sum() * 3600 / timeline.span_s
        tiles.append(_tile("Throughput", f"{rate:,.0f} / h", "videos per hour of the last run"))
        if timeline.utilisation is not None:
            used = f"of {timeline.actors} actors' time at work on the device"
            tiles.append(_tile("Utilisation", f"{100 * timeline.utilisation:.0f} %", used))
    tiles.append(
        _tile(
            "Device time",
            duration(float(numbers.device_s[numbers.is_first].sum(dtype=float))),
            "all videos here",
        )
    )
    if cost:
        tiles.append(cost)
    videos = int(numbers.is_first.sum())
    tiles.append(
        _tile(
            "Material", duration(numbers.length_s), f"{videos:,} MP4s, {numbers.size_bytes / 2**20:,.1f} MiB"
        )
    )
    return tiles


def _cost(
    output: FinishedOutput, timeline: Timeline | None, config: dict[str, Any], summary: dict[str, Any]
) -> dict[str, str] | None:
    """What the actors of the last run that rendered cost, idle or not; None where no GPU was used."""
    if timeline is None:
        return None
    plan = _plan_of(output, timeline.run_id)
    summary = output.run_json(timeline.run_id, "summary.json") or summary
    gpus = (plan.get("actors") or 0) * (plan.get("gpus_per_actor") or 0)
    if not gpus:
        return None
    wall_s = summary.get("wall_s") if summary.get("run_id") == timeline.run_id else None
    hours = gpus * (wall_s or timeline.span_s) / 3600
    price = config.get("price_per_gpu_hour")
    videos = int(timeline.videos.sum())
    if price is None:
        return _tile("Cost", f"{hours:,.2f} GPU-h", "of the last run; --price-per-gpu-hour makes it dollars")
    each = f"{hours:,.2f} GPU-hours of the last run, ${price * hours / videos:,.4f} a video"
    return _tile("Cost", f"${price * hours:,.2f}", each)


def _tile(name: str, value: str, more: str) -> dict[str, str]:
    return {"name": name, "value": value, "more": more}


def _errors(numbers: ReportNumbers, output: FinishedOutput) -> list[dict[str, Any]]:
    groups = numbers.errors()
    positions = np.unique(np.concatenate([group[3] for group in groups])) if groups else np.zeros(0, int)
    records = dict(zip(positions.tolist(), output.take(positions), strict=True)) if groups else {}
    return [
        {
            "status": str(status),
            "error_class": str(error_class),
            "count": f"{count:,}",
            "examples": [records[position] for position in examples.tolist()],
        }
        for status, error_class, count, examples in groups
    ]


def _histograms(numbers: ReportNumbers) -> list[dict[str, Any]]:
    found = []
    for name, label in SCORES.items():
        values = numbers.scores[name][numbers.ok]
        if np.isfinite(values).any():
            found.append({"title": label, "svg": figures.histogram(values, label)})
    return found


def _timeline(timeline: Timeline | None) -> dict[str, Any] | None:
    if timeline is None:
        return None
    shown = [
        {"title": "Throughput", "svg": figures.throughput(timeline)},
        {"title": "Stages of a video", "svg": figures.stages(timeline)},
        {"title": "Devices at work", "svg": figures.busy(timeline)},
    ]
    return {"note": f"Run {timeline.run_id}, in steps of {duration(timeline.step_s)}.", "figures": shown}


def _run(run: dict[str, Any]) -> dict[str, str]:
    places = ", ".join(f"{node}, {device} ({count:,})" for (node, device), count in run["places"].items())
    return {
        "run_id": run["run_id"],
        "when": f"{_utc(run['first_s'], zone='')} to {_utc(run['last_s'], zone='')}",
        "videos": f"{run['videos']:,}",
        "failed": f"{run['failed']:,}",
        "device": duration(run["device_s"]),
        "places": places or "–",
    }


def _rows_note(numbers: ReportNumbers, listed: int) -> str:
    if listed == numbers.records:
        return ""
    return (
        f"This page lists {listed:,} of {numbers.records:,} records: failed ones, the worst scored and slowest, and "
        "an even choice of the others. Every number and plot above is of all records; records/ holds them."
    )


def _versions(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every value that is found: more than one where runs differ."""
    found = []
    for name in _VERSIONS:
        values = sorted({str(record[name]) for record in records if record[name] is not None})
        found.append((name.replace("_", " "), ", ".join(values) or "–"))
    assert all(name in RECORD_SCHEMA.names for name in _VERSIONS)
    return found


def _files(output: FinishedOutput, records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    last = max(records, key=lambda record: record["finished_at"])["run_id"] if records else ""
    found = [(f"run/{name}", name) for name in ("config.json", "plan.json", "summary.json", "records.json")]
    if last:
        found.append((f"run/{last}/config.json", f"{last}/config.json"))
    return found + [
        (path, f"../{path}") for path in (f"records/{uri.rsplit('/', 1)[-1]}" for uri in output.files)
    ]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def _utc(seconds: float, zone: str = " UTC") -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}{zone}"
