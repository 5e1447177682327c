"""A run before anything happens: every row of the manifest validated, named, and joined with what is committed."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from actors.assets import AssetLoader
from actors.commits import CommitStore
from actors.records import Provenance
from actors.storage import Storage, is_local
from actors.uris import absolute_path
from pipeline.compute import Compute, choose_compute, resources
from pipeline.ledger import read_commit_index
from pipeline.manifest_reader import ManifestReader
from pipeline.model_info import ModelInfo, read_model_info
from pipeline.plan import Plan, make_plan, plan_summary, work_units
from pipeline.provenance import run_provenance
from pipeline.row_planner import RowPlanner
from schemas.planned import PlannedRow
from schemas.run import RenderRun


@dataclass(frozen=True)
class PreparedRun:
    """A run whose every row is planned; nothing is written yet."""

    run: RenderRun
    storage: Storage
    model: ModelInfo
    compute: Compute
    provenance: Provenance
    plan: Plan
    units: list[list[PlannedRow]]

    @property
    def commits(self) -> CommitStore:
        return CommitStore(self.storage, self.run.output)

    @cached_property
    def description(self) -> dict[str, Any]:
        """The plan as JSON (see `plan_summary`)."""
        return plan_summary(self.plan, self.run, self.compute, len(self.units))


def prepare(run: RenderRun) -> PreparedRun:
    """Reads the manifest, validates and names every row, and joins it with what the output already holds.

    Raises:
        UsageError, ManifestError: the run cannot be as asked.
        InfrastructureError: manifest, model or output cannot be reached.
    """
    run = _with_absolute_paths(run)
    storage = Storage(run.limits)
    compute = choose_compute(run, resources())
    model = read_model_info(storage, run.model)
    provenance = run_provenance(run, model, compute.dtype)
    reader = ManifestReader(storage, run.manifest, run.limit)
    planner = RowPlanner(run, model, AssetLoader(storage, run.limits), provenance)
    index = read_commit_index(CommitStore(storage, run.output))
    plan = make_plan(reader, planner, index, compute, model.unet_channels)
    return PreparedRun(run, storage, model, compute, provenance, plan, work_units(plan, run, compute))


def _with_absolute_paths(run: RenderRun) -> RenderRun:
    """Local paths mean this process's folder, in workers and in records too."""
    names = ("manifest", "model", "output")
    local = {name: absolute_path(uri) for name in names if is_local(uri := getattr(run, name))}
    return run.model_copy(update=local)
