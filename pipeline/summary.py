"""The result of a run in numbers: for the terminal, for `run/summary.json` and for the exit code."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actors.records import Provenance
from pipeline.agreement import Finding
from pipeline.budget import Budget
from pipeline.scratch import Scratch, key_bytes
from schemas.record import Status
from schemas.run import ExitCode

_SCORES = ("clip_text", "clip_style", "clip_temp")


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
    problems: dict[str, int]  # other differences between commits, MP4s and records, by kind (see `Finding`)
    spent_usd: float | None = None  # what the actors of this run cost; None where its config has no price
    stopped: str | None = None  # what ended it before everything was done: max_cost, max_hours or stop_at

    @property
    def failed(self) -> int:
        return self.records - self.statuses.get(Status.OK, 0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def exit_code(self, max_failed_fraction: float, *, of_some_rows: bool = False) -> ExitCode:
        """What is missing is infrastructure's fault: records the same command finishes, MP4s `jobs.reconcile` names.

        Records that are missing since the run's time was over are nobody's fault.

        Args:
            of_some_rows: it was to make only those again; what others lack is not its fault, but the output is not done.
        """
        if self.stopped and not self.problems.keys() - {Finding.MISSING_COMMIT, Finding.OUTDATED_COMMIT}:
            return ExitCode.STOPPED
        unasked = {Finding.MISSING_COMMIT} if of_some_rows else set()
        if self.problems.keys() - unasked or (self.missing and not of_some_rows):
            return ExitCode.INFRASTRUCTURE
        if self.missing or self.failed > max_failed_fraction * self.records:
            return ExitCode.DONE_WITH_FAILED_ROWS
        return ExitCode.DONE


class RecordTotals:
    """Counts and sums of a snapshot's records, part by part."""

    def __init__(self, scratch: Scratch, run_id: str):
        self._scratch = scratch
        self._run_id = run_id
        self.statuses: Counter[str] = Counter()
        self.error_classes: Counter[str] = Counter()
        self._scores: dict[str, tuple[float, int]] = dict.fromkeys(_SCORES, (0.0, 0))  # sum, videos
        scratch.execute("CREATE TABLE rendered (row_key PRIMARY KEY, device_s) WITHOUT ROWID")

    @property
    def records(self) -> int:
        return self.statuses.total()

    @property
    def render_s(self) -> float:
        """Device seconds of what the run rendered; a video that several records share counts once."""
        [seconds] = self._scratch.one("SELECT coalesce(sum(device_s), 0) FROM rendered") or [0.0]
        return round(seconds, 2)

    @property
    def mean_scores(self) -> dict[str, float]:
        return {name: round(total / count, 6) for name, (total, count) in self._scores.items() if count}

    def add(self, records: pa.Table) -> None:
        """Counts some more records."""
        self.statuses.update(records["status"].to_pylist())
        self.error_classes.update(name for name in records["error_class"].to_pylist() if name)
        ok = records.filter(pc.equal(records["status"], Status.OK))
        for name in _SCORES:
            total, count = self._scores[name]
            self._scores[name] = (
                total + (pc.sum(ok[name]).as_py() or 0.0),
                count + pc.count(ok[name]).as_py(),
            )
        mine = ok.filter(pc.equal(ok["run_id"], self._run_id)).select(["row_key", "timings"]).to_pylist()
        self._scratch.each(
            "INSERT OR REPLACE INTO rendered VALUES (?, ?)",
            ((key_bytes(record["row_key"]), _device_s(record["timings"] or {})) for record in mine),
        )


def summarise(
    plan: dict[str, Any],
    totals: RecordTotals,
    provenance: Provenance,
    wall_s: float,
    problems: Mapping[Finding, int],
    budget: Budget | None = None,
) -> RunSummary:
    """Counts the committed records of a manifest."""
    unfinished = problems.get(Finding.MISSING_COMMIT, 0) + problems.get(Finding.OUTDATED_COMMIT, 0)
    spent_usd = budget.spent_usd() if budget and plan["to_render"] else None
    return RunSummary(
        run_id=provenance.run_id,
        code_version=provenance.code_version,
        model_fingerprint=provenance.model_fingerprint,
        model_trained=provenance.model_trained,
        records=plan["records"],
        statuses=dict(totals.statuses),
        error_classes=dict(totals.error_classes),
        missing=plan["records"] - totals.records,
        rendered=plan["to_render"],
        reused=plan["to_copy"] + sum(plan["already_done"].values()),
        wall_s=round(wall_s, 2),
        render_s=totals.render_s,
        mean_scores=totals.mean_scores,
        problems={str(kind): count for kind, count in problems.items()},
        spent_usd=None if spent_usd is None else round(spent_usd, 4),
        stopped=budget.bound if budget and budget.is_over and unfinished else None,
    )


def _device_s(timings: dict[str, float | None]) -> float:
    return sum(timings.get(name) or 0.0 for name in ("condition_s", "denoise_s", "decode_s", "score_s"))
