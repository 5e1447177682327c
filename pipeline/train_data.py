"""Training data from manifest to micro-batch: an ordered stream for each training worker, from any position on."""

import gc
import logging
import time
import warnings
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionResources
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.exceptions import GetTimeoutError
from ray.util.annotations import RayDeprecationWarning

from actors.micro_batch import MicroBatch, from_table
from actors.storage import Storage
from actors.training_rows import read_training_rows
from actors.training_samples import TrainingSamples, check_kinds
from pipeline.failures import as_run_failure
from schemas.data_plan import DataPlan
from schemas.run import UsageError
from schemas.training import Kind

# Ray Data makes the list of all blocks of a dataset before the first is used (0.3 ms each), and a run can have
# millions: one dataset follows another. Each start costs some seconds and the readers' caches.
_BLOCKS_PER_DATASET = 8_000
_MAX_RESTARTS = 4  # of a reader that dies, per dataset; its work is done again by another
_MAX_TASK_RETRIES = 2
_POLL_S = 0.5
_SCHEDULING_PAUSE_S = 0.05
_FREE_CPUS_TIMEOUT_S = 30.0  # the readers of a worker that was killed may still be ending


@dataclass(frozen=True)
class DataSummary:
    """What a plan's manifests hold."""

    rows: dict[Kind, int]  # usable ones
    styles: int  # distinct style ids
    all_videos_styled: bool  # then videos have references, too
    skipped: dict[str, int]  # why how many rows cannot be used
    warnings: list[str]
    fingerprint: str  # a run that resumes with another one would go on with other data


def summarise_data(plan: DataPlan) -> DataSummary:
    """Reads the manifests, as every reader will, and checks that the plan can be carried out with them.

    Raises:
        ManifestError: a manifest is missing, broken, or has no usable row; names file and column.
        UsageError: the plan needs images or videos of which there are none.
        InfrastructureError: the storage failed.
    """
    storage = Storage(plan.limits, plan.patience_s)
    rows = read_training_rows(storage, plan.manifests, needs_depth=plan.depth)
    check_kinds(plan, rows)
    return DataSummary(
        rows.counts, rows.styles, rows.all_videos_styled, dict(rows.skipped), rows.warnings, rows.fingerprint
    )


def stream(plan: DataPlan, *, rank: int, world_size: int, start: int, stop: int) -> Generator[MicroBatch]:
    """The micro-batches start <= m < stop with m % world_size == rank, in order.

    Needs a running Ray with `plan.cpus` free beside what all training workers reserve. Closing the iterator
    (or dropping it) ends the readers.

    Raises:
        UsageError: there are too few CPUs for the readers, or one row after the other cannot be read.
        ManifestError, InfrastructureError: as for `summarise_data`.
    """
    if not 0 <= rank < world_size or not 0 <= start <= stop:
        raise ValueError(
            f"rank = {rank}, world_size = {world_size}, start = {start}, stop = {stop}: allowed are "
            "0 <= rank < world_size and 0 <= start <= stop"
        )
    first = start + (rank - start) % world_size
    indices = range(first, stop, world_size)
    step = _BLOCKS_PER_DATASET * plan.micro_batches_per_block
    return _stream(plan, [indices[at : at + step] for at in range(0, len(indices), step)], world_size)


def _stream(plan: DataPlan, parts: list[range], world_size: int) -> Generator[MicroBatch]:
    for indices in parts:
        with as_run_failure("the data readers"):
            _wait_for_cpus(plan, world_size)
            tables = iter(
                _dataset(plan, indices).iter_batches(
                    batch_size=None, batch_format="pyarrow", prefetch_batches=plan.prefetch_blocks
                )
            )
            try:
                with closing(tables):  # type: ignore[type-var]
                    for table in tables:
                        yield from from_table(table)
            except GetTimeoutError:
                raise UsageError(_too_few_cpus(plan, world_size)) from None
            finally:
                del tables
                gc.collect()  # Ray Data's cycles hold the last blocks in the object store


def _dataset(plan: DataPlan, indices: range) -> Dataset:
    """The micro-batches of these indices, some of them in a block. Nothing runs yet."""
    size = plan.micro_batches_per_block
    blocks = [indices[at : at + size] for at in range(0, len(indices), size)]
    with DataContext.current(_context(plan)), warnings.catch_warnings():
        # `max_restarts` has no named parameter in Ray 2.60, and passing it otherwise warns.
        warnings.filterwarnings(
            "ignore", message="`ray_remote_args` is deprecated", category=RayDeprecationWarning
        )
        # Not `ray.data.range`: each of its blocks costs a task, and all of them run before the first is used.
        return ray.data.from_items(
            [{"first": block.start, "stop": block.stop, "step": block.step} for block in blocks],
            override_num_blocks=len(blocks),
        ).map_batches(
            TrainingSamples,
            fn_constructor_args=[plan],
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(plan.readers, len(blocks))),
            num_cpus=plan.cpus_per_reader,
            # Ray's default tries a block that kills its process for ever.
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_TASK_RETRIES,
        )


class _PacedScheduling(ExecutionCallback):
    """Lets the training thread compute.

    Ray Data schedules in a thread of the training worker. While all that it may prefetch is there, no task runs
    that it could wait for, and it turns without a pause: holding the interpreter, it made training steps
    four times as long (docs/log.md).
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        time.sleep(_SCHEDULING_PAUSE_S)


def _context(plan: DataPlan) -> DataContext:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else the reader's own error does not reach the worker
    context.max_errored_blocks = 0  # samples are never lost without a word
    context.wait_for_min_actors_s = max(1, int(plan.start_timeout_s))  # else it waits for ever
    context.custom_execution_callback_classes = [_PacedScheduling]
    context.execution_options.preserve_order = True
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=plan.prefetch_bytes
    )
    return context


def _wait_for_cpus(plan: DataPlan, world_size: int) -> None:
    """Readers without a CPU would never start, and the training worker would wait for them without a word."""
    total = ray.cluster_resources().get("CPU", 0.0)
    deadline = time.monotonic() + _FREE_CPUS_TIMEOUT_S
    while plan.cpus * world_size <= total:
        if ray.available_resources().get("CPU", 0.0) >= plan.cpus:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    raise UsageError(_too_few_cpus(plan, world_size))


def _too_few_cpus(plan: DataPlan, world_size: int) -> str:
    total = ray.cluster_resources().get("CPU", 0.0)
    free = ray.available_resources().get("CPU", 0.0)
    return (
        f"readers = {plan.readers}: with {plan.cpus_per_reader:g} CPUs each they need {plan.cpus:g} CPUs beside each "
        f"of {world_size} training workers, but {free:g} of {total:g} CPUs are free; give fewer CPUs to a training "
        "worker, or use fewer readers or a smaller cpus_per_reader"
    )
