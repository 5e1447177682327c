"""The result of a run in numbers: for the terminal, for `run/summary.json` and for the exit code."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from actors.records import Provenance
from schemas.record import Status
from schemas.run import ExitCode


@dataclass(frozen=True)
class RunSummary:
    """Every record of the manifest, counted."""

    run_id: str
    code_version: str
    model_fingerprint: str
    model_trained: bool
    records: int  # what the manifest asks for: rows x samples
    statuses: dict[str, int]
    error_classes: dict[str, int]
    missing: int  # records without a commit: only after a crash
    rendered: int  # by this run
    reused: int  # found finished, or sharing a video with another record
    wall_s: float
    render_s: float  # device seconds of what this run rendered
    mean_scores: dict[str, float]

    @property
    def failed(self) -> int:
        return self.records - self.statuses.get(Status.OK, 0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def exit_code(self, max_failed_fraction: float) -> ExitCode:
        """Missing records are infrastructure's fault: the same command finishes them."""
        if self.missing:
            return ExitCode.INFRASTRUCTURE
        if self.failed > max_failed_fraction * self.records:
            return ExitCode.DONE_WITH_FAILED_ROWS
        return ExitCode.DONE


def summarise(
    plan: dict[str, Any], records: list[dict[str, Any]], provenance: Provenance, wall_s: float
) -> RunSummary:
    """Counts the committed records of a manifest."""
    ok = [record for record in records if record["status"] == Status.OK]
    mine = {record["row_key"]: record for record in ok if record["run_id"] == provenance.run_id}
    return RunSummary(
        run_id=provenance.run_id,
        code_version=provenance.code_version,
        model_fingerprint=provenance.model_fingerprint,
        model_trained=provenance.model_trained,
        records=plan["records"],
        statuses=dict(Counter(record["status"] for record in records)),
        error_classes=dict(Counter(record["error_class"] for record in records if record["error_class"])),
        missing=plan["records"] - len(records),
        rendered=plan["to_render"],
        reused=plan["to_copy"] + sum(plan["already_done"].values()),
        wall_s=round(wall_s, 2),
        render_s=round(sum(_device_s(record) for record in mine.values()), 2),
        mean_scores=_mean_scores(ok),
    )


def _device_s(record: dict[str, Any]) -> float:
    timings = record["timings"] or {}
    return sum(timings.get(name) or 0.0 for name in ("condition_s", "denoise_s", "decode_s", "score_s"))


def _mean_scores(records: list[dict[str, Any]]) -> dict[str, float]:
    means = {}
    for name in ("clip_text", "clip_style", "clip_temp"):
        values = [record[name] for record in records if record[name] is not None]
        if values:
            means[name] = round(sum(values) / len(values), 6)
    return means
