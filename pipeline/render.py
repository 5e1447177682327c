"""The product on one screen: a manifest in; videos, scores and records out."""

import json
import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from actors.actor_config import ActorConfig
from actors.commits import CommitStore
from actors.records import Record, copied_record
from actors.storage import join
from pipeline.cluster import ray_session
from pipeline.compute import READ_CPUS
from pipeline.failures import as_run_failure
from pipeline.plan import write_units
from pipeline.prepare import PreparedRun
from pipeline.progress import RenderProgress
from pipeline.snapshot import publish_snapshot
from pipeline.summary import RunSummary, summarise
from schemas.planned import PlannedRow

_WRITERS = 16
_CALLS_PER_ACTOR = 2  # one unit denoises while the next is fetched
_MIN_NO_PROGRESS_S = 1800


def render(prepared: PreparedRun) -> RunSummary:
    """Carries out a plan. Whatever ends it, everything committed stays, and the same command continues.

    Raises:
        InfrastructureError: the output's store or the actors failed for reasons that are no row's own.
    """
    started = monotonic()
    plan = prepared.plan
    _write_run_files(prepared)
    already_done = plan.already_done.total()
    with RenderProgress(plan.records, already_done, to_render=len(plan.to_render)) as progress:
        _commit(prepared.commits, plan.new_failures)
        progress.failed_at_plan(len(plan.new_failures))
        progress.reused(_copy(prepared, plan.to_copy_now))
        for record in render_units(prepared):
            progress.rendered(record)
        progress.reused(_copy(prepared, plan.to_copy_after))
    records = publish_snapshot(prepared.storage, prepared.run.output, plan.record_ids)
    summary = summarise(prepared.description, records, prepared.provenance, wall_s=monotonic() - started)
    _write_json(prepared, "summary.json", summary.as_json())
    return summary


def render_units(prepared: PreparedRun) -> Iterator[Record]:
    """The records of all work units, as the actors finish them. Frames never leave an actor."""
    if not prepared.units:
        return
    # Brings torch and the model code: a run with nothing to render need not wait for them.
    from actors.render_actor import RenderActor

    storage, compute = prepared.storage, prepared.compute
    units = write_units(storage, _run_dir(prepared), prepared.units)
    filesystem, path = storage.arrow_filesystem(units)
    _configure_ray_data(prepared)
    with ray_session(), as_run_failure():
        records = (
            ray.data.read_parquet(path, filesystem=filesystem, num_cpus=READ_CPUS)
            .repartition(target_num_rows_per_block=1)
            .map_batches(
                RenderActor,
                fn_constructor_args=[actor_config(prepared)],
                batch_size=1,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(
                    size=min(compute.actors, len(prepared.units)),
                    max_concurrent_calls_per_actor=_CALLS_PER_ACTOR,
                    enable_true_multi_threading=True,
                ),
                num_cpus=compute.cpus_per_actor,
                num_gpus=compute.gpus_per_actor or None,
                # Ray's default tries a unit that kills its process for ever.
                max_task_retries=1,
            )
        )
        yield from records.iter_rows()
    storage.delete(units)  # may hold presigned URLs, and has served


def actor_config(prepared: PreparedRun) -> ActorConfig:
    """What each render actor of the run is built from."""
    run, compute = prepared.run, prepared.compute
    return ActorConfig(
        model=run.model,
        output=run.output,
        device=compute.device,
        threads=compute.threads,
        batch_size=run.batch_size,
        scores=run.scores,
        limits=run.limits,
        provenance=prepared.provenance,
    )


def _configure_ray_data(prepared: PreparedRun) -> None:
    """Ray Data counts blocks; rows are counted here, against the manifest."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # `max_task_retries` has no named parameter in Ray 2.60, and passing it otherwise warns.
    warnings.filterwarnings(
        "ignore", message="`ray_remote_args` is deprecated", category=RayDeprecationWarning
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else the actor's own error does not reach the driver
    slowest_s = max(prepared.plan.estimated_s.values()) * max(len(unit) for unit in prepared.units)
    context.execution_no_progress_timeout_s = max(_MIN_NO_PROGRESS_S, int(20 * slowest_s))


def _commit(commits: CommitStore, records: list[Record]) -> None:
    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(commits.write, records))


def _copy(prepared: PreparedRun, rows: list[tuple[PlannedRow, str]]) -> int:
    """Commits rows whose video another record has; a source that is not there (yet) leaves its row open."""
    commits = prepared.commits
    sources = commits.read_many([source for _, source in rows])
    copies = [
        copied_record(row, source)
        for (row, _), source in zip(rows, sources, strict=True)
        if source is not None and source["row_key"] == row.row_key
    ]
    _commit(commits, copies)
    return len(copies)


def _run_dir(prepared: PreparedRun) -> str:
    return join(prepared.run.output, "run", prepared.provenance.run_id)


def _write_run_files(prepared: PreparedRun) -> None:
    _write_json(prepared, "config.json", prepared.run.model_dump(mode="json"))
    _write_json(prepared, "plan.json", prepared.description)


def _write_json(prepared: PreparedRun, name: str, value: dict[str, Any]) -> None:
    """Keeps a file with the run, and as the output's latest."""
    body = json.dumps(value, indent=2, ensure_ascii=False).encode()
    for directory in (_run_dir(prepared), join(prepared.run.output, "run")):
        prepared.storage.write_bytes(join(directory, name), body)
