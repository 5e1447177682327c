"""Proves that manifest, commits, MP4s and records of an output agree, and names what does not.

Neither the model nor the pictures are needed: what a row asks for is compared by a digest that its commit has too.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from actors.records import Provenance, Record
from actors.storage import ObjectNotFound, ObjectStat, Storage, is_local, join, redact
from actors.uris import absolute_path
from pipeline.agreement import ORPHANS, Agreement, Finding
from pipeline.asked import AskedRecords
from pipeline.closing import manifest_fingerprint, mark
from pipeline.commit_index import CommitIndex, asked_digest, asked_of
from pipeline.contents import compare_records, compare_videos
from pipeline.lease import Lease
from pipeline.manifest_reader import ManifestReader
from pipeline.model_info import ModelInfo
from pipeline.repair import Repair
from pipeline.row_planner import RowPlanner
from pipeline.scratch import Scratch
from schemas.planned import PlannedRow
from schemas.repair_run import ReconcileRun
from schemas.run import RenderRun, UsageError

_CHUNK_ROWS = 500
_LISTED_PER_KIND = 100
_MAX_JSON_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Reconciliation:
    """What was compared, what differs now, and what was done about it."""

    about: dict[str, Any]  # of the manifest and of how it was checked
    asked: int
    statuses: dict[str, int]
    counts: dict[Finding, int]
    examples: dict[Finding, list[dict[str, str]]]
    actions: dict[str, int]  # what the repair did -> how often

    @property
    def differences(self) -> dict[Finding, int]:
        """The findings that are not only reported."""
        return {kind: count for kind, count in self.counts.items() if kind not in ORPHANS}

    @property
    def agrees(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        """What is kept as `run/reconcile.json`."""
        return {
            **self.about,
            "agrees": self.agrees,
            "records": self.asked,
            "statuses": self.statuses,
            "findings": {kind: {"count": n, "first": self.examples[kind]} for kind, n in self.counts.items()},
            "repaired": self.actions,
        }


def reconcile(run: ReconcileRun) -> Reconciliation:
    """Compares everything, repairs if asked to, writes `run/reconcile.json`, and writes or removes `_SUCCESS`.

    Raises:
        UsageError: the output was not made by `jobs.render`, or a run holds it.
        ManifestError: the manifest cannot be used.
        InfrastructureError: something cannot be reached.
    """
    render, plan = _what_was_run(Storage(), run)
    storage = Storage(render.limits)
    with Lease(storage, run.output, "reconcile"):
        return _reconcile(storage, run, render, plan)


def _reconcile(
    storage: Storage, run: ReconcileRun, render: RenderRun, plan: dict[str, Any]
) -> Reconciliation:
    index = CommitIndex(Scratch(), storage, run.output)
    asked = AskedRecords(index.scratch)
    reader = ManifestReader(storage, render.manifest, render.limit)
    for some in _asked_records(reader, render, plan):
        asked.add(some)
    asked.index()
    agreement = Agreement(index)
    _compare(index, agreement, run)
    actions: dict[str, int] = {}
    if run.repair and agreement.differences():
        actions = Repair(index, agreement).run()
        _compare(index, agreement, run)
    about = {
        "run_id": plan["run_id"],
        "manifest": redact(render.manifest),
        "manifest_fingerprint": manifest_fingerprint(storage, reader.files, render.limit),
        "checked": run.check,
    }
    result = Reconciliation(
        about, asked.count, index.statuses(), agreement.counts(), _examples(agreement), actions
    )
    body = json.dumps(result.as_json(), indent=2, ensure_ascii=False).encode()
    storage.write_bytes(join(run.output, "run", "reconcile.json"), body)
    mark(index, about, agrees=result.agrees)
    return result


def _compare(index: CommitIndex, agreement: Agreement, run: ReconcileRun) -> None:
    compare_records(index, contents=run.check != "listing")
    agreement.compare()
    if run.check != "listing":
        compare_videos(index, agreement, decode=run.check == "decode")


def _what_was_run(storage: Storage, run: ReconcileRun) -> tuple[RenderRun, dict[str, Any]]:
    """The config and the plan of the output's last run, with the manifest that is asked for."""
    config, plan = (_read_json(storage, run.output, name) for name in ("config.json", "plan.json"))
    if run.manifest is not None:
        config["manifest"] = absolute_path(run.manifest) if is_local(run.manifest) else run.manifest
    try:
        return RenderRun.model_validate(config), plan
    except ValidationError as error:
        raise UsageError(
            f"output = {run.output!r}: run/config.json is not a render's config: {error}"
        ) from None


def _read_json(storage: Storage, output: str, name: str) -> dict[str, Any]:
    uri = join(output, "run", name)
    try:
        value = json.loads(storage.read_bytes(uri, max_bytes=_MAX_JSON_BYTES))
    except ObjectNotFound:
        raise UsageError(f"output = {output!r}: no run/{name} there; was it made by jobs.render?") from None
    except ValueError as error:
        raise UsageError(f"{uri} is not JSON: {error}; the next jobs.render writes it anew") from None
    if not isinstance(value, dict):
        raise UsageError(f"{uri} holds no JSON object; the next jobs.render writes it anew")
    return value


class _Unseen:
    """Stands for the pictures: their versions say nothing of what a row asks for."""

    def probe(self, location: str) -> ObjectStat:
        return ObjectStat(location, 0, "unseen")

    probe_depth = probe


def _asked_records(
    reader: ManifestReader, render: RenderRun, plan: dict[str, Any]
) -> Iterator[list[tuple[bytes, None, bytes, str]]]:
    """(record_id, no row_key, what is asked, row_id) of every record of the manifest, some at a time."""
    model = ModelInfo(**plan["model"])
    provenance = Provenance(
        run_id="",
        code_version="",
        model_fingerprint=model.fingerprint,
        model_trained=model.trained,
        engine=model.engine,
        dtype=plan["dtype"],
        render_epoch=render.render_epoch,
        speed=render.speed.of_records(),
    )
    planner = RowPlanner(render, model, _Unseen(), provenance)
    rows = reader.rows()
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        asked = (_asked(planned, provenance) for planned in planner.plan(chunk))
        while some := list(islice(asked, _CHUNK_ROWS)):
            yield some


def _asked(planned: PlannedRow | Record, provenance: Provenance) -> tuple[bytes, None, bytes, str]:
    if isinstance(planned, dict):
        return bytes.fromhex(planned["record_id"]), None, asked_digest(planned), planned["row_id"]
    return bytes.fromhex(planned.record_id), None, asked_digest(asked_of(planned, provenance)), planned.row_id


def _examples(agreement: Agreement) -> dict[Finding, list[dict[str, str]]]:
    """The first findings of each kind, as JSON."""
    return {
        kind: [
            {name: value for name, value in found._asdict().items() if name != "kind" and value is not None}
            for found in agreement.of_kind(kind, _LISTED_PER_KIND)
        ]
        for kind in agreement.counts()
    }
