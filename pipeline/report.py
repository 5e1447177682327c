"""The morning report: one HTML page that says what was made, how good it is, what failed and what it cost."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from actors.storage import Storage, join, redact
from pipeline import report_figures as figures
from pipeline.finished import FinishedOutput, open_output
from pipeline.page import PAGES, render_page
from pipeline.report_evaluation import evaluation_section
from pipeline.report_numbers import SCORES, ReportNumbers, Timeline
from pipeline.report_rows import page_data
from pipeline.report_summary import duration, gpu_hours, plan_of, summary_values, utc
from pipeline.report_sweep import sweep_report
from pipeline.report_thumbnails import thumbnails
from schemas.record import RECORD_SCHEMA, Status
from schemas.run import FetchLimits

_DEFAULT_ROWS = 10_000
_SCRIPTS = ("report.js", "report_sweep.js")
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
    config = output.run_json("config.json")
    runs = [run | {"gpu_hours": gpu_hours(output, run)} for run in numbers.runs()]
    timeline = _last_timeline(output, numbers, runs)
    sweep = sweep_report(output, numbers)
    listed = numbers.to_list(max_rows)
    if sweep:
        listed = np.union1d(listed, sweep.positions)
    records = output.take(listed)
    pictures = thumbnails(
        output, _references(records), config, FetchLimits.model_validate(config.get("limits") or {})
    )
    data = page_data(output, records, config, pictures) | {"sweep": sweep and sweep.grid(listed)}
    return render_page(
        "report.html",
        ("base.css", "report.css"),
        "\n".join((PAGES / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        data,
        title="/".join(redact(output.uri).rstrip("/").split("/")[-2:]),
        **summary_values(output, numbers, timeline, runs, records),
        errors=_errors(numbers, output),
        histograms=_histograms(numbers),
        sweep=sweep and sweep.section,
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


def _last_timeline(
    output: FinishedOutput, numbers: ReportNumbers, runs: list[dict[str, Any]]
) -> Timeline | None:
    """How the last run that made a video went."""
    with_videos = [run for run in runs if run["videos"]]
    if not with_videos:
        return None
    run_id = max(with_videos, key=lambda run: run["last_s"])["run_id"]
    return numbers.timeline(plan_of(output, run_id).get("actors"), run_id)


def _references(records: list[dict[str, Any]]) -> Iterator[str]:
    """The style pictures of what was made, as the records name them."""
    for record in records:
        if record["status"] == Status.OK:
            yield from record["style_image_uri"] or ()


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
        "when": f"{utc(run['first_s'], zone='')} to {utc(run['last_s'], zone='')}",
        "videos": f"{run['videos']:,}",
        "failed": f"{run['failed']:,}",
        "device": duration(run["device_s"]),
        "gpu_hours": "–" if run["gpu_hours"] is None else f"{run['gpu_hours']:,.2f}",
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
