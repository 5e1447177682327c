"""The product on one screen: a manifest in; videos, scores and records out."""

import json
import logging
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from actors import logs, metrics
from actors.actor_config import ActorConfig
from actors.commits import CommitStore
from actors.parallel import parallel_map
from actors.records import Record, copied_record
from actors.storage import join
from pipeline.breaker import Breaker
from pipeline.closing import close_output, mark
from pipeline.cluster import living_nodes, ray_session, session_name
from pipeline.compute import READ_CPUS
from pipeline.eta import Eta
from pipeline.lease import Lease
from pipeline.prepare import PreparedRun, on_gpus_that_came
from pipeline.progress import RenderProgress
from pipeline.rounds import Round, Rounds, sweep_attempts
from pipeline.summary import RecordTotals, RunSummary, summarise
from schemas.planned import PlannedRow

logger = logging.getLogger(__name__)

_COPIED_TOGETHER = 500
_CALLS_PER_ACTOR = 2  # one unit denoises while the next is fetched
_MAX_LOST_UNITS = 32
_MAX_INIT_DEATHS = 3
_GENEROUS = 20  # times the plan's guess
_MIN_TIMEOUT_S = 1800.0


def render(prepared: PreparedRun) -> RunSummary:
    """Carries out a plan. Whatever ends it, everything committed stays, and the same command continues.

    Raises:
        InfrastructureError: the output's store or the actors failed for reasons that are no row's own, most rows
            fail in the same way (`CircuitOpen`), or another run took the output over (`LeaseLost`).
        UsageError: another run is writing to the output.
    """
    logs.start(prepared.run.log_format, prepared.provenance.run_id)
    prepared = on_gpus_that_came(prepared)
    started = monotonic()
    plan, run, provenance = prepared.plan, prepared.run, prepared.provenance
    logger.info("planned", extra=logs.fields(plan=prepared.description))
    with Lease(prepared.storage, run.output, provenance.run_id):
        breaker = Breaker(prepared.storage, run.output, provenance.run_id, run.max_failed_fraction)
        breaker.saw_plan(plan.failures(), plan.new_failures.total(), plan.records - plan.already_done.total())
        _write_run_files(prepared)
        already_done = plan.already_done.total()
        if already_done < plan.records:
            prepared.remember_plan()
            mark(prepared.index, {}, agrees=False)
        with RenderProgress(plan.records, already_done, Eta.of(prepared), prepared.budget) as progress:
            _commit(prepared.commits, plan.failures())
            progress.failed_at_plan(plan.new_failures.total())
            progress.reused(_copy(prepared, plan.copies(of_finished=True)))
            with closing(render_units(prepared)) as records:
                for record in prepared.index.saving(records):
                    progress.rendered(record)
                    _log_row(record)
                    metrics.row_finished(record)
                    metrics.in_queue("render", progress.to_render)
                    breaker.saw(record)
            progress.reused(_copy(prepared, plan.copies(of_finished=False)))
        sweep_attempts(prepared)
        totals = RecordTotals(plan.scratch, provenance.run_id)
        problems = close_output(prepared.index, prepared.mark, totals.add)
        summary = summarise(
            prepared.description, totals, provenance, monotonic() - started, problems, prepared.budget
        )
        _write_json(prepared, "summary.json", summary.as_json())
        logger.info("finished", extra=logs.fields(summary=summary.as_json()))
        return summary


def render_units(prepared: PreparedRun) -> Generator[Record, None, None]:
    """One record per row to render, as the actors finish them. Frames never leave an actor."""
    if not prepared.unit_count or prepared.budget.is_over:
        return
    with DataContext.current(_ray_data_context(prepared)), ray_session():
        metrics.count_for(prepared.provenance.run_id)
        yield from Rounds(prepared, partial(run_round, prepared), living_nodes).records()


def run_round(prepared: PreparedRun, a_round: Round) -> Iterator[dict[str, Any]]:
    """The outcomes of a round's units (rows of RESULT_SCHEMA); a unit whose process dies has none."""
    # Brings torch and the model code: a run with nothing to render need not wait for them.
    from actors.render_actor import RenderActor

    compute = prepared.compute
    filesystem, path = prepared.storage.arrow_filesystem(a_round.units_uri)
    outcomes = (
        ray.data.read_parquet(path, filesystem=filesystem, num_cpus=READ_CPUS)
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            RenderActor,
            fn_constructor_args=[actor_config(prepared, a_round)],
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=min(compute.actors, a_round.units),
                max_concurrent_calls_per_actor=1 if a_round.alone else _CALLS_PER_ACTOR,
                max_tasks_in_flight_per_actor=1 if a_round.alone else None,
                enable_true_multi_threading=True,
            ),
            num_cpus=compute.cpus_per_actor,
            num_gpus=compute.gpus_per_actor or None,
            # Ray's default tries a unit that kills its process for ever, with whatever is in there beside it.
            max_task_retries=0,
        )
    )
    yield from outcomes.iter_rows()


def actor_config(prepared: PreparedRun, a_round: Round | None = None) -> ActorConfig:
    """What each render actor of the run, or of a round of it, is built from."""
    run, compute = prepared.run, prepared.compute
    return ActorConfig(
        model=run.model,
        output=run.output,
        device=compute.device,
        threads=compute.threads,
        batch_size=run.batch_size,
        scores=run.scores,
        limits=run.limits,
        speed=run.speed,
        safety=run.safety,
        storage_patience_s=run.storage_patience_s,
        provenance=prepared.provenance,
        render_timeout_s=_render_timeout_s(prepared),
        alone=a_round is not None and a_round.alone,
        begun={} if a_round is None else a_round.begun,
        again=a_round is not None and a_round.number > 1,
        session=session_name(),
        stop_at=prepared.budget.stop_at,
        profile=run.profile,
        log_format=run.log_format,
    )


def _render_timeout_s(prepared: PreparedRun) -> float:
    """The plan's guess may be wrong tenfold, and a process's first batch is slow."""
    slowest_batch_s = max(prepared.plan.estimated_s.values(), default=0.0) * prepared.run.batch_size
    return prepared.run.render_timeout_s or max(_MIN_TIMEOUT_S, _GENEROUS * slowest_batch_s)


def _ray_data_context(prepared: PreparedRun) -> DataContext:
    """Ray Data counts blocks; rows are counted here, against the manifest."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a unit that was lost is no news for the user
    # `max_task_retries` has no named parameter in Ray 2.60, and passing it otherwise warns.
    warnings.filterwarnings(
        "ignore", message="`ray_remote_args` is deprecated", category=RayDeprecationWarning
    )
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else the actor's own error does not reach the driver
    context.max_errored_blocks = (
        _MAX_LOST_UNITS  # a lost unit does not end the round; `Rounds` looks after its rows
    )
    context.max_consecutive_actor_init_deaths = _MAX_INIT_DEATHS
    # A render that hangs is ended by its own process; this is for what that cannot see.
    patience_s = max(_MIN_TIMEOUT_S, _GENEROUS * prepared.longest_unit_s) + _render_timeout_s(prepared)
    context.execution_no_progress_timeout_s = int(patience_s + prepared.run.storage_patience_s)
    return context


def _commit(commits: CommitStore, records: Iterable[Record]) -> int:
    return sum(1 for _ in parallel_map(commits.write, records))


def _copy(prepared: PreparedRun, rows: Iterable[tuple[PlannedRow, str]]) -> int:
    """Commits rows whose video another record has; a source that is not there (yet) leaves its row open."""
    commits = prepared.commits

    def copies() -> Iterator[Record]:
        waiting = iter(rows)
        while some := list(islice(waiting, _COPIED_TOGETHER)):
            sources = commits.try_many([source for _, source in some])
            for (row, _), source in zip(some, sources, strict=True):
                if isinstance(source, dict) and source["row_key"] == row.row_key:
                    yield copied_record(row, source)

    return _commit(commits, copies())


def _log_row(record: Record) -> None:
    names = ("row_id", "sample_index", "variant", "status", "error_class", "error", "node", "timings")
    logger.info("row finished", extra=logs.fields(**{name: record[name] for name in names}))


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
