"""The training loop of all stages, as one worker runs it."""

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from actors.micro_batch import MicroBatch
from actors.storage import Storage, join
from pipeline.train_eval import Validation, png_bytes
from pipeline.train_export import export_model
from pipeline.train_log import MetricsLog
from pipeline.train_meter import Meter
from pipeline.train_model import (
    load_model,
    share_among_workers,
    use_half_precision_where_frozen,
    without_sync,
)
from pipeline.train_state import TrainState, learning_rate, load_state, save_state
from schemas.data_plan import DataPlan
from schemas.run import UsageError
from schemas.train_run import TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.training import Draws, TrainingModel, draw

PATIENCE_S = 300.0  # outage of the output's store that a run survives


@dataclass(frozen=True)
class TrainJob:
    """What each worker is told; small and picklable."""

    run: TrainRun
    plan: DataPlan
    threads: int  # torch threads of a worker without a GPU
    precision: str  # "float32" or "bfloat16"


@dataclass(frozen=True)
class WorkerContext:
    """Where one worker runs, and how it gets its data and hands over its checkpoints."""

    rank: int
    world_size: int
    device: torch.device
    checkpoint: Path | None  # the folder to go on from
    # This worker's micro-batches from one index up to another.
    micro_batches: Callable[[int, int], Generator[MicroBatch]]
    # Takes step, loss, and a checkpoint's folder, which the first worker has.
    report: Callable[[int, float, Path | None], None]


class Worker:
    """One worker's part of a run. It knows nothing of Ray: that is all in its context."""

    def __init__(self, job: TrainJob, context: WorkerContext):
        run = self._run = job.run
        self._context = context
        if context.device.type == "cpu":
            torch.set_num_threads(job.threads)
        self._storage = Storage(run.limits, PATIENCE_S)
        self._model_dir = self._storage.local_copy(run.model)
        self._pipeline, self._model = self._load(job.precision)
        self._call = share_among_workers(self._model, run, context.world_size)
        self._autocast = torch.autocast(
            context.device.type, torch.bfloat16, enabled=job.precision == "bfloat16"
        )
        self._state = TrainState.fresh(run, self._model.trainable_parameters())
        if context.checkpoint is not None:
            self._state.restore(load_state(context.checkpoint))
        self._began_at_step = self._state.step
        self._validation = Validation(run, job.plan, self._model, self._pipeline)
        self._log = MetricsLog(self._storage, run, self._state.step) if context.rank == 0 else None
        # A line of metrics at each of them: a run that goes on has the same lines as one that never stopped.
        self._interruptions = (run.validate_every, run.sample_every, run.checkpoint_every)
        self._meter = Meter()

    def _load(self, precision: str) -> tuple[StyleCrafterPipeline, TrainingModel]:
        pipeline, model = load_model(self._run, self._model_dir)
        if precision == "bfloat16":
            use_half_precision_where_frozen(model)
        return pipeline, model.to(self._context.device)

    def train(self) -> None:
        """To the last step, and then writes the model directory.

        Raises:
            UsageError: the loss is not finite any more, or the data cannot be read.
            ManifestError, InfrastructureError: as the stream of the data.
        """
        run, state = self._run, self._state
        per_step = run.micro_batches_per_step
        with closing(self._context.micro_batches(state.step * per_step, run.steps * per_step)) as arriving:
            micro_batches = chain(list(islice(arriving, 1)), arriving)
            self._meter = Meter()  # the start of the readers is no waiting for data
            while state.step < run.steps:
                self._step(micro_batches)
                if any(self._due(every) for every in (run.log_every, *self._interruptions)):
                    self._tell()
        self._finish()

    def _due(self, every: int) -> bool:
        """Whether what is done `every` so many steps (0: never) is due; at the last step, everything is."""
        return self._state.step == self._run.steps or bool(every and self._state.step % every == 0)

    def _step(self, micro_batches: Iterator[MicroBatch]) -> None:
        """One optimiser step: the mean gradient of its micro-batches, over all workers."""
        accumulation = self._run.micro_batches_per_step // self._context.world_size
        for number in range(1, accumulation + 1):
            waiting_since = time.perf_counter()
            batch = next(micro_batches)
            self._meter.data_wait_s += time.perf_counter() - waiting_since
            with without_sync(self._call, is_last=number == accumulation):
                loss = self._forward(batch, self._draw(batch)).mean()
                (loss / accumulation).backward()
            self._meter.count(batch, loss)
        self._meter.grad_norms.append(self._state.apply_gradients(self._run))

    def _draw(self, batch: MicroBatch) -> Draws:
        return draw(
            self._run.seed,
            batch.kind,
            batch.positions_B.tolist(),
            self._model.latent_shape(*batch.target_BTHWC.shape[1:4]),
            self._model.options,
            self._model.scheduler.config.num_train_timesteps,
        )

    def _forward(self, batch: MicroBatch, draws: Draws, plain: bool = False) -> torch.Tensor:
        """Loss per row of a micro-batch [B]."""
        ids_BS = self._pipeline.tokenizer.prompt_ids(batch.captions)
        reference = batch.reference_B3HW
        with self._autocast:
            loss_B: torch.Tensor = self._call(
                torch.from_numpy(batch.target_BTHWC).to(self._context.device),
                ids_BS.to(self._context.device),
                None if reference is None else torch.from_numpy(reference).to(self._context.device),
                draws.to(self._context.device),
                plain,
                None if batch.depth_BTHWC is None else torch.from_numpy(batch.depth_BTHWC),
            )
        return loss_B

    def _tell(self) -> None:
        """A line of metrics, and what else is due at this step; none of it counts as training time."""
        line = self._metrics()
        if self._due(self._run.validate_every):
            line |= self._validation.losses(self._call, self._forward)
        if self._due(self._run.sample_every):
            self._write_samples()
        if self._log is not None:
            self._log.add(line)
        if self._due(self._run.checkpoint_every):
            self._checkpoint(line["loss"])
        self._meter = Meter()

    def _metrics(self) -> dict[str, Any]:
        """The line of metrics since the last one, the same on every worker. Every worker must call it.

        Raises:
            UsageError: the loss or the gradients are not finite: what is trained is lost.
        """
        run, step = self._run, self._state.step
        line = {
            "step": step,
            "time": time.time(),
            **self._meter.metrics(),
            "learning_rate": learning_rate(run, step - 1),
            "began_at_step": self._began_at_step,
        }
        for name in ("loss", "grad_norm"):
            if not math.isfinite(line[name]):
                raise UsageError(
                    f"{name} is {line[name]} at step {step}: training has diverged; begin again with a smaller "
                    f"--learning-rate (now {run.learning_rate:g}) and another --output"
                )
        return line

    def _write_samples(self) -> None:
        """A grid of what the averaged weights make. Sharded weights need all workers for it."""
        if not self._run.samples or (self._context.rank and not isinstance(self._call, FSDPModule)):
            return
        self._call.eval()
        with self._averaged_weights(), self._autocast:
            grid = self._validation.sample_grid(self._context.device)
        self._call.train()
        if grid is not None and self._context.rank == 0:
            uri = join(self._run.output, "samples", f"step-{self._state.step:08d}.png")
            self._storage.write_bytes(uri, png_bytes(grid))

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights, for calls of its parts."""
        parameters, ema, model = list(self._state.parameters.values()), self._state.ema, self._call
        sharded = model if isinstance(model, FSDPModule) else None
        if sharded is not None:
            sharded.reshard()  # what a forward pass left gathered are the last weights
        if ema is not None:
            ema.store(parameters)
            ema.copy_to(parameters)
        if sharded is not None:
            sharded.unshard()  # its own forward, which would do that, is not called
        try:
            yield
        finally:
            if sharded is not None:
                sharded.reshard()
            if ema is not None:
                ema.restore(parameters)

    def _checkpoint(self, loss: float) -> None:
        """Every worker must call it: it is a barrier."""
        state, folder = self._state.gather(), None
        if state is not None:
            folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
            save_state(state, folder)
        if self._log is not None:
            self._log.write()
        self._context.report(self._state.step, loss, folder)

    def _finish(self) -> None:
        state = self._state.gather()
        if state is not None:
            export_model(self._run, self._model_dir, state, self._storage)
        if self._log is not None:
            self._log.close()
