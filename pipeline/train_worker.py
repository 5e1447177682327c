"""A training worker as Ray Train runs it: what it goes on from, its data, and where its checkpoints go."""

from collections.abc import Generator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.collective import broadcast_from_rank_zero

from actors.micro_batch import MicroBatch
from actors.storage import Storage
from pipeline.train_checkpoints import Checkpoints, checkpoint_name
from pipeline.train_data import stream
from pipeline.train_loop import PATIENCE_S, TrainJob, Worker, WorkerContext
from schemas.manifest import ManifestError
from schemas.run import UsageError


def train_worker(config: dict[str, Any]) -> Exception | None:
    """Trains from the newest checkpoint (or the beginning) to the last step.

    Returns:
        What is wrong with the run, where there is one worker: Ray Train would try again, and meet it again.
    """
    job: TrainJob = config["job"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()

    def micro_batches(start: int, stop: int) -> Generator[MicroBatch]:
        return stream(job.plan, rank=rank, world_size=world_size, start=start, stop=stop)

    checkpoints = Checkpoints(Storage(job.run.limits, PATIENCE_S), job.run)
    device, report = ray.train.torch.get_device(), partial(_report, checkpoints)
    # Asked by one worker: another might find a newer one, of workers that are still ending.
    newest = checkpoints.newest_step() if rank == 0 else None
    checkpoint = broadcast_from_rank_zero(None if newest is None else _uploaded(newest))
    try:
        with checkpoint.as_directory() if checkpoint else nullcontext() as folder:
            start = Path(folder) if folder else None
            worker = Worker(job, WorkerContext(rank, world_size, device, start, micro_batches, report))
        worker.train()
    except (UsageError, ManifestError) as error:
        if world_size > 1:  # the others wait for this one, and only its failure frees them
            raise
        return error
    return None


def _uploaded(step: int) -> Checkpoint:
    """A step's checkpoint in the run's output, in Ray Train's terms."""
    where = ray.train.get_context().get_storage()
    path = where.build_checkpoint_path_from_name(checkpoint_name(step))
    return Checkpoint(path, where.storage_filesystem)


def _report(checkpoints: Checkpoints, step: int, loss: float, folder: Path | None) -> None:
    """Uploads a checkpoint in the background, while training goes on."""

    def upload(local: Checkpoint, name: str) -> Checkpoint:
        checkpoints.save(Path(local.path), step)
        return _uploaded(step)

    ray.train.report(
        {"step": step, "loss": loss},
        checkpoint=Checkpoint.from_directory(str(folder)) if folder else None,
        checkpoint_dir_name=checkpoint_name(step),
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        delete_local_checkpoint_after_upload=True,
        checkpoint_upload_fn=upload,
    )
