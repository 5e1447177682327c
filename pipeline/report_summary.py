"""What the report says first: how many videos are made, how good they are, what they took and cost."""

from datetime import UTC, datetime
from typing import Any

from actors.storage import redact
from pipeline.finished import FinishedOutput
from pipeline.present import UNTRAINED_NOTE
from pipeline.report_numbers import SCORES, ReportNumbers, Timeline
from schemas.record import Status

_STATUS_LABELS = {
    Status.OK: "made",
    Status.FAILED: "failed",
    Status.INVALID: "invalid",
    Status.QUARANTINED: "quarantined",
}


def plan_of(output: FinishedOutput, run_id: str) -> dict[str, Any]:
    """The plan of a run, or of the last one where its own is gone."""
    return output.run_json(run_id, "plan.json") or output.run_json("plan.json")


def summary_values(
    output: FinishedOutput,
    numbers: ReportNumbers,
    timeline: Timeline | None,
    runs: list[dict[str, Any]],
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the head of the page is made of.

    Args:
        runs: as `ReportNumbers.runs`, with their `gpu_hours`.
    """
    config, summary = output.run_json("config.json"), output.run_json("summary.json")
    return {
        "subtitle": _subtitle(numbers, runs, config),
        "notes": _notes(records, summary),
        "headline": _headline(numbers, summary),
        "statuses": _statuses(numbers, summary),
        "tiles": _tiles(numbers, timeline, _cost(runs, config.get("price_per_gpu_hour"))),
    }


def _subtitle(numbers: ReportNumbers, runs: list[dict[str, Any]], config: dict[str, Any]) -> str:
    parts = [f"{len(runs)} run{'' if len(runs) == 1 else 's'}"]
    if len(numbers.finished_s):
        parts.append(f"last record {utc(numbers.finished_s.max())}")
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
            actors = "the actor's" if timeline.actors == 1 else f"{timeline.actors} actors'"
            used = f"of {actors} time at work on the device"
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
            "Material", duration(numbers.length_s), f"{videos:,} files, {numbers.size_bytes / 2**20:,.1f} MiB"
        )
    )
    return tiles


def gpu_hours(output: FinishedOutput, run: dict[str, Any]) -> float | None:
    """What a run's actors held GPUs for, at work or idle; None where it had none.

    A run that was killed left no summary: then from its first record to its last.
    """
    plan = plan_of(output, run["run_id"])
    gpus = (plan.get("actors") or 0) * (plan.get("gpus_per_actor") or 0)
    wall_s = output.run_json(run["run_id"], "summary.json").get("wall_s") or run["last_s"] - run["first_s"]
    return gpus * wall_s / 3600 if gpus else None


def _cost(runs: list[dict[str, Any]], price: float | None) -> dict[str, str] | None:
    """Of all runs; None where no GPU was used."""
    hours = sum(run["gpu_hours"] or 0.0 for run in runs)
    if not hours:
        return None
    of = "of the run" if len(runs) == 1 else f"of {len(runs)} runs"
    if price is None:
        return _tile("Cost", f"{hours:,.2f} GPU-h", f"{of}; --price-per-gpu-hour makes it dollars")
    videos = sum(run["videos"] for run in runs)
    each = f", ${price * hours / videos:,.4f} a video" if videos else ""
    return _tile("Cost", f"${price * hours:,.2f}", f"{hours:,.2f} GPU-hours {of}{each}")


def _tile(name: str, value: str, more: str) -> dict[str, str]:
    return {"name": name, "value": value, "more": more}


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s" if seconds < 10 else f"{seconds:,.0f} s"


def utc(seconds: float, zone: str = " UTC") -> str:
    """A time since the epoch as date and time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}{zone}"
