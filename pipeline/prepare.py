"""A run before anything happens: every row of the manifest validated, named, and joined with what is committed."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from actors.assets import AssetLoader
from actors.commits import CommitStore
from actors.records import Provenance
from actors.storage import AccessDenied, Storage, is_local, join, redact
from actors.uris import absolute_path
from pipeline.breaker import open_circuits
from pipeline.budget import Budget, open_budget
from pipeline.closing import manifest_fingerprint
from pipeline.commit_index import CommitIndex
from pipeline.compute import Compute, choose_compute, resources
from pipeline.earlier_plan import EarlierPlan, plan_key
from pipeline.gpus import about_gpus, choose_compute_now, to_plan_with
from pipeline.lease import check_free
from pipeline.ledger import redo_after
from pipeline.manifest_reader import ManifestReader
from pipeline.model_info import ModelInfo, read_model_info
from pipeline.plan import Group, Only, Plan, make_plan
from pipeline.plan_summary import plan_summary
from pipeline.provenance import run_provenance
from pipeline.row_planner import RowPlanner
from pipeline.scratch import Scratch
from pipeline.units import unit_sizes, work_units
from schemas.planned import PlannedRow
from schemas.run import RenderRun, UsageError


@dataclass(frozen=True)
class PreparedRun:
    """A run whose every row is planned; nothing is written yet."""

    run: RenderRun
    storage: Storage
    model: ModelInfo
    compute: Compute
    provenance: Provenance
    index: CommitIndex
    plan: Plan
    earlier: EarlierPlan
    rows_per_unit: dict[Group, int]
    mark: dict[str, Any]  # what `_SUCCESS` says of the run
    budget: Budget

    @property
    def commits(self) -> CommitStore:
        return CommitStore(self.storage, self.run.output)

    @property
    def unit_count(self) -> int:
        sizes = self.rows_per_unit
        return sum(-(-count // sizes[group]) for group, count in self.plan.to_render.items())

    @property
    def longest_unit_s(self) -> float:
        """The guess for the unit that takes one actor longest; 0 where nothing is to be rendered."""
        estimated_s = self.plan.estimated_s
        return max(
            (rows * estimated_s[group.bucket] for group, rows in self.rows_per_unit.items()), default=0.0
        )

    def units(self) -> Iterator[list[PlannedRow]]:
        """The work units, read from the plan as they are taken."""
        return work_units(self.plan, self.rows_per_unit)

    def remember_plan(self) -> None:
        """Spares the next run that is the same to plan again what is finished by then."""
        if self.plan.is_news:
            self.earlier.save(self.plan.scratch)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The plan as JSON (see `plan_summary`)."""
        return plan_summary(self.plan, self.run, self.compute, self.unit_count) | {
            "run_id": self.provenance.run_id,
            "model": self.model.as_json(),
        }


def prepare(run: RenderRun, only: Only | None = None) -> PreparedRun:
    """Reads the manifest, validates and names every row, and joins it with what the output already holds.

    Args:
        only: nothing but these committed records is done again (default: what is not done, and passing failures).

    Raises:
        UsageError, ManifestError: the run cannot be as asked, or another one is writing to the output.
        InfrastructureError: manifest, model or output cannot be reached.
    """
    run = with_absolute_paths(run).with_preset()
    _check_store(run)
    storage = Storage(run.limits, run.storage_patience_s)
    check_free(storage, run.output)
    available = resources()
    compute = choose_compute(run, to_plan_with(run, available))
    model = read_model_info(storage, run.model)
    if run.speed.attention_broadcast and not model.is_stylecrafter:
        raise UsageError(f"speed.attention_broadcast is not something the engine {model.engine!r} has")
    provenance = run_provenance(run, model, compute.dtype)
    reader = ManifestReader(storage, run.manifest, run.limit)
    planner = RowPlanner(run, model, AssetLoader(storage, run.limits), provenance)
    scratch = Scratch()
    index = CommitIndex(scratch, storage, run.output)
    index.load()
    redo = redo_after(open_circuits(storage, run.output))
    fingerprint = manifest_fingerprint(storage, reader.files, run.limit)
    earlier = EarlierPlan(storage, run.output, plan_key(run, model, provenance, fingerprint))
    plan = make_plan(reader, planner, scratch, compute, model.unet_channels, redo, only, earlier)
    plan.warnings += index.warnings() + about_gpus(run, available)
    rows_per_unit = unit_sizes(plan, run, compute)
    mark = {
        "run_id": provenance.run_id,
        "manifest": redact(run.manifest),
        "manifest_fingerprint": fingerprint,
    }
    budget = open_budget(run, compute)
    return PreparedRun(
        run, storage, model, compute, provenance, index, plan, earlier, rows_per_unit, mark, budget
    )


def on_gpus_that_came(prepared: PreparedRun) -> PreparedRun:
    """The run with the GPUs that it asks for, on as many of them as came; money and hours count from here on.

    Raises:
        UsageError, InfrastructureError: as `choose_compute_now`.
    """
    if not prepared.run.wait_for_gpus or not prepared.unit_count or prepared.budget.is_over:
        return prepared
    compute = choose_compute_now(prepared.run)
    return replace(prepared, compute=compute, budget=open_budget(prepared.run, compute))


def _check_store(run: RenderRun) -> None:
    """An address or credentials that are wrong show within seconds: only later failures are waited for."""
    remote = [uri for uri in (run.manifest, run.model, run.output) if not is_local(uri)]
    if remote:
        with suppress(AccessDenied):  # to this object, which need not be there
            Storage(run.limits).exists(join(remote[0], "_SUCCESS"))


def with_absolute_paths(run: RenderRun) -> RenderRun:
    """Local paths mean this process's folder, in workers and in records too."""
    names = ("manifest", "model", "output")
    local: dict[str, Any] = {
        name: absolute_path(uri) for name in names if is_local(uri := getattr(run, name))
    }
    if run.safety.model and is_local(run.safety.model):
        local["safety"] = run.safety.model_copy(update={"model": absolute_path(run.safety.model)})
    return run.model_copy(update=local)
