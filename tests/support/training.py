"""Training runs in this process: the real model and loop on the real samples, without Ray."""

import contextlib
import json
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from actors.micro_batch import MicroBatch
from actors.storage import Storage
from actors.training_samples import TrainingSamples
from examples.demo_world.export import Export, export
from pipeline.model_info import read_model_info
from pipeline.train import data_plan
from pipeline.train_loop import TrainJob, Worker, WorkerContext
from schemas.data_plan import DataPlan
from schemas.train_run import TrainRun

SIDE = 32  # pixels of the pictures


def write_demo_world(folder: Path, clips: int = 6, stills: int = 12, styles: int = 4) -> str:
    """A small demo world; the URI of its manifest."""
    return export(Export(output=str(folder), clips=clips, stills=stills, styles=styles, size=SIDE, frames=4))


def job_of(run: TrainRun) -> TrainJob:
    """The job as `prepare_training` makes it for one thread."""
    storage = Storage()
    return TrainJob(run, data_plan(run, read_model_info(storage, run.model), storage), 1, "float32")


def samples_of(plan: DataPlan, indices: range) -> Generator[MicroBatch]:
    """These micro-batches of the plan's stream, made here."""
    samples = TrainingSamples(plan)
    try:
        yield from map(samples.micro_batch, indices)
    finally:
        samples.close()


class Stopped(BaseException):
    """The run was interrupted after a checkpoint."""


def train_here(
    run: TrainRun, checkpoint: Path | None = None, stop_at: int | None = None, shift: int = 0
) -> dict[int, Path]:
    """Trains from a checkpoint (or the beginning) in this process; the checkpoints by step.

    Args:
        stop_at: the run ends with the checkpoint of this step, as if it were killed.
        shift: micro-batches by which the stream begins too late: a wrong data position.
    """
    job = job_of(run)
    checkpoints: dict[int, Path] = {}

    def report(step: int, loss: float, folder: Path | None) -> None:
        assert folder is not None
        checkpoints[step] = Path(run.output) / f"kept-{step}"
        shutil.move(folder, checkpoints[step])
        if step == stop_at:
            raise Stopped

    def micro_batches(start: int, stop: int) -> Generator[MicroBatch]:
        return samples_of(job.plan, range(start + shift, stop + shift))

    with _one_thread(), contextlib.suppress(Stopped):
        context = WorkerContext(0, 1, torch.device("cpu"), checkpoint, micro_batches, report)
        Worker(job, context).train()
    return checkpoints


def metrics_of(output: Path | str) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]


def losses_of(output: Path | str) -> dict[int, float]:
    """Loss by step."""
    return {line["step"]: line["loss"] for line in metrics_of(output)}


def tensors_of(model: Path | str) -> dict[str, torch.Tensor]:
    """All tensors of a model directory, by component and name."""
    return {
        f"{file.parent.name}.{name}": tensor
        for file in sorted(Path(model).rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The largest difference of two models' tensors, relative to each tensor's largest value."""
    assert left.keys() == right.keys()
    return max(
        float((left[name].double() - right[name].double()).abs().max())
        / max(float(right[name].double().abs().max()), 1e-12)
        for name in left
    )


def apart(left: Path | str, right: Path | str, start: Path | str) -> float:
    """How far two trained models are from each other, as a share of how far the right one is from the start.

    Single weights say less: where a gradient is zero but for rounding, Adam makes steps of full length of it.
    """
    ours, theirs, before = (tensors_of(model) for model in (left, right, start))
    assert ours.keys() == theirs.keys()

    def length(values: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
        squares = [
            float((value.double() - others[name].double()).square().sum())
            for name, value in values.items()
            if name in others
        ]
        return float(sum(squares) ** 0.5)

    return length(ours, theirs) / length(theirs, before)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
