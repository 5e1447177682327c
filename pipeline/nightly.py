"""A night: every manifest below a prefix rendered, reconciled, evaluated and reported, each into an output of its own.

A manifest that is finished costs its plan and nothing else, so that the same command is right every night, and right
again after anything that stopped it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from actors.storage import Storage, StorageError, is_local, join
from actors.uris import absolute_path, redact
from pipeline.breaker import CircuitOpen
from pipeline.prepare import PreparedRun, prepare
from pipeline.reconcile import reconcile
from pipeline.render import render
from pipeline.report import write_report
from pipeline.webhook import post
from schemas.manifest import ManifestError
from schemas.night import NightOutput, NightReport, NightRun
from schemas.repair_run import ReconcileRun
from schemas.run import ExitCode, InfrastructureError, UsageError

_CODES = {
    "infrastructure": ExitCode.INFRASTRUCTURE,
    "refused": ExitCode.USAGE,
    "stopped": ExitCode.STOPPED,
    "not_begun": ExitCode.STOPPED,
    "failed_rows": ExitCode.DONE_WITH_FAILED_ROWS,
}  # the first that occurs is the night's
_STATUSES = {code: status for status, code in reversed(_CODES.items())} | {ExitCode.DONE: "done"}


def run_night(night: NightRun, say: Callable[[str], Any]) -> NightReport:
    """Works through the manifests in the order of their names; the report is kept, posted, and returned.

    Args:
        say: is told what happens, a line at a time.

    Raises:
        UsageError: there is no manifest below the prefix.
        StorageError: the prefix cannot be listed, or the report not be written.
    """
    started = datetime.now(UTC)
    night = _from_now(night, started)
    storage = Storage(night.limits, night.storage_patience_s)
    outputs: list[NightOutput] = []
    for manifest, output in _manifests(storage, night):
        if outputs and outputs[-1].status in ("infrastructure", "stopped", "not_begun"):
            outputs.append(NightOutput(manifest=redact(manifest), output=output, status="not_begun"))
            continue
        say(f"{redact(manifest)} -> {output}")
        outputs.append(_one(night, storage, manifest, output, _spent(outputs)))
        say(_line(outputs[-1]))
    report = NightReport(
        run_id=night.run_id or started.strftime("night-%Y%m%dT%H%M%SZ"),
        started_at=started.isoformat(timespec="seconds"),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        exit_code=next(
            (code for status, code in _CODES.items() if any(o.status == status for o in outputs)), 0
        ),
        rendered=sum(one.rendered for one in outputs),
        spent_usd=_spent(outputs) if night.price_per_gpu_hour is not None else None,
        outputs=outputs,
    )
    if night.webhook:
        report = report.model_copy(update={"webhook": post(report, night.webhook, night.webhook_http_hosts)})
        say(f"webhook: {report.webhook}")
    body = report.model_dump_json(indent=2).encode()
    for name in (report.run_id, "latest"):
        storage.write_bytes(join(night.output, "nightly", f"{name}.json"), body)
    return report


def _from_now(night: NightRun, now: datetime) -> NightRun:
    """Hours count for the whole night: they become its deadline."""
    ends = [night.stop_at] if night.stop_at else []
    if night.max_hours is not None:
        ends.append(now + timedelta(hours=night.max_hours))
    local = {
        name: absolute_path(uri) for name in ("manifest", "output") if is_local(uri := getattr(night, name))
    }
    return night.model_copy(update=local | {"max_hours": None, "stop_at": min(ends, default=None)})


def _manifests(storage: Storage, night: NightRun) -> list[tuple[str, str]]:
    """(manifest, its output), sorted by name."""
    prefix = night.manifest.rstrip("/") + "/"
    uris = sorted(stat.uri for stat in storage.list(night.manifest) if stat.uri.endswith(".parquet"))
    if not uris:
        raise UsageError(f"manifest = {redact(night.manifest)!r}: there is no .parquet file below it")
    return [(uri, join(night.output, uri.removeprefix(prefix).removesuffix(".parquet"))) for uri in uris]


def _one(night: NightRun, storage: Storage, manifest: str, output: str, spent_usd: float) -> NightOutput:
    result = NightOutput(manifest=redact(manifest), output=output, status="done")
    run = night.render_run(manifest, output)
    if run.max_cost is not None:
        if run.max_cost <= spent_usd:
            return result.model_copy(update={"status": "not_begun"})
        run = run.model_copy(update={"max_cost": run.max_cost - spent_usd})
    try:
        prepared = prepare(run)
        if _is_unchanged(prepared):
            about = {"status": "unchanged", "records": prepared.plan.records}
            return result.model_copy(update=about | {"statuses": dict(prepared.plan.already_done)})
        return result.model_copy(update=_rendered(prepared) | _followed(night, storage, output))
    except (UsageError, ManifestError) as error:
        return result.model_copy(update={"status": "refused", "error": redact(str(error))})
    except CircuitOpen as error:  # this manifest's rows: the others may be sound
        return result.model_copy(update={"status": "refused", "error": redact(str(error))})
    except (InfrastructureError, StorageError) as error:
        return result.model_copy(update={"status": "infrastructure", "error": redact(str(error))})


def _is_unchanged(prepared: PreparedRun) -> bool:
    plan = prepared.plan
    to_do = plan.to_render.total() + plan.to_copy + plan.new_failures.total()
    return not to_do and prepared.storage.exists(join(prepared.run.output, "_SUCCESS"))


def _rendered(prepared: PreparedRun) -> dict[str, Any]:
    summary = render(prepared)
    return {
        "status": _STATUSES[summary.exit_code(prepared.run.max_failed_fraction)],
        "records": summary.records,
        "statuses": summary.statuses,
        "error_classes": summary.error_classes,
        "rendered": summary.rendered - (summary.missing if summary.stopped else 0),
        "spent_usd": summary.spent_usd,
        "mean_scores": summary.mean_scores,
    }


def _followed(night: NightRun, storage: Storage, output: str) -> dict[str, Any]:
    """What is done with an output that was rendered: compared, evaluated if asked, and shown."""
    agrees = reconcile(ReconcileRun(output=output)).agrees
    if night.evaluate:
        from pipeline.evaluate import evaluate  # brings torch
        from schemas.review_run import EvaluateRun

        evaluate(EvaluateRun(output=output, finished=True, clip=night.clip), storage)
    return {"reconciled": agrees, "report": write_report(storage, output)}


def _spent(outputs: list[NightOutput]) -> float:
    return round(sum(one.spent_usd or 0.0 for one in outputs), 4)


def _line(one: NightOutput) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(one.statuses.items()))
    return "  " + "; ".join(filter(None, [one.status.replace("_", " "), counts, one.error]))
