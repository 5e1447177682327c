"""The training loop of all stages, as one Ray Train worker runs it."""

import logging
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode

from actors.micro_batch import MicroBatch
from actors.storage import Storage, join
from pipeline.train_data import stream
from pipeline.train_eval import Validation, png_bytes
from pipeline.train_export import export_model
from pipeline.train_log import MetricsLog
from pipeline.train_model import (
    load_model,
    share_among_workers,
    use_half_precision_where_frozen,
    without_sync,
)
from pipeline.train_state import TrainState, learning_rate, load_state, save_state
from schemas.data_plan import DataPlan
from schemas.train_run import TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.training import Draws, TrainingModel, draw

logger = logging.getLogger(__name__)

_PATIENCE_S = 300.0  # outage of the output's store that a run survives


@dataclass(frozen=True)
class TrainJob:
    """What each worker is told; small and picklable."""

    run: TrainRun
    plan: DataPlan
    threads: int  # torch threads of a worker without a GPU
    precision: str  # "float32" or "bfloat16"


@dataclass
class _Meter:
    """Sums since the last line of metrics."""

    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    grad_norms: list[float] = field(default_factory=list)
    samples: int = 0
    steps: int = 0
    data_wait_s: float = 0.0
    began_at: float = field(default_factory=time.perf_counter)
    problems: Counter[str] = field(default_factory=Counter)


def train_worker(config: dict[str, Any]) -> None:
    """Trains from the newest checkpoint (or the beginning) to the last step."""
    job: TrainJob = config["job"]
    with ExitStack() as stack:
        _Worker(job, stack).train()


class _Worker:
    def __init__(self, job: TrainJob, stack: ExitStack):
        run = self._run = job.run
        self._plan = job.plan
        self._stack = stack
        context = ray.train.get_context()
        self._rank, self._world_size = context.get_world_rank(), context.get_world_size()
        self._device = ray.train.torch.get_device()
        if self._device.type == "cpu":
            torch.set_num_threads(job.threads)
        self._storage = Storage(run.limits, _PATIENCE_S)
        self._model_dir = self._storage.local_copy(run.model)
        self._pipeline, self._model = self._load(job.precision)
        self._call = share_among_workers(self._model, run, self._world_size)
        self._autocast = torch.autocast(
            self._device.type, torch.bfloat16, enabled=job.precision == "bfloat16"
        )
        self._state = TrainState.fresh(run, self._model.trainable_parameters())
        self._restore()
        self._validation = Validation(run, job.plan, self._model, self._pipeline)
        self._log = MetricsLog(self._storage, run, self._state.step) if self._rank == 0 else None
        self._meter = _Meter()

    def _load(self, precision: str) -> tuple[StyleCrafterPipeline, TrainingModel]:
        pipeline, model = load_model(self._run, self._model_dir)
        if precision == "bfloat16":
            use_half_precision_where_frozen(model, torch.bfloat16)
        return pipeline, model.to(self._device)

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            self._state.restore(load_state(Path(folder)))
        logger.info("goes on from step %d", self._state.step)

    def train(self) -> None:
        run, state = self._run, self._state
        micro_batches = self._stack.enter_context(closing(self._micro_batches()))
        while state.step < run.steps:
            self._step(micro_batches)
            validating = self._due(run.validate_every)
            line = self._metrics() if validating or self._due(run.log_every) else None
            if line is not None and validating:
                line |= self._validation.losses(self._call, self._forward)
            if self._due(run.sample_every):
                self._write_samples()
            if line is not None:
                self._tell(line)
            if self._due(run.checkpoint_every):
                self._checkpoint(line)
        self._finish()

    def _due(self, every: int) -> bool:
        """Whether what is done `every` so many steps (0: never) is due; at the last step, everything is."""
        return self._state.step == self._run.steps or bool(every and self._state.step % every == 0)

    def _micro_batches(self) -> Generator[MicroBatch]:
        """This worker's part of what is left of the run."""
        per_step = self._run.micro_batches_per_step
        return stream(
            self._plan,
            rank=self._rank,
            world_size=self._world_size,
            start=self._state.step * per_step,
            stop=self._run.steps * per_step,
        )

    def _step(self, micro_batches: Iterator[MicroBatch]) -> None:
        """One optimiser step: the mean gradient of its micro-batches, over all workers."""
        accumulation = self._run.micro_batches_per_step // self._world_size
        for number in range(1, accumulation + 1):
            waiting_since = time.perf_counter()
            batch = next(micro_batches)
            self._meter.data_wait_s += time.perf_counter() - waiting_since
            with without_sync(self._call, is_last=number == accumulation):
                loss = self._forward(batch, self._draw(batch)).mean()
                (loss / accumulation).backward()
            self._count(batch, loss)
        self._meter.grad_norms.append(self._state.apply_gradients(self._run))
        self._meter.steps += 1

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
                torch.from_numpy(batch.target_BTHWC).to(self._device),
                ids_BS.to(self._device),
                None if reference is None else torch.from_numpy(reference).to(self._device),
                draws.to(self._device),
                plain,
            )
        return loss_B

    def _count(self, batch: MicroBatch, loss: torch.Tensor) -> None:
        self._meter.losses[batch.kind].append(loss.detach().item())
        self._meter.samples += len(batch.captions)
        self._meter.problems.update(batch.problems)

    def _metrics(self) -> dict[str, Any]:
        """The line of metrics since the last one, the same on every worker. Every worker must call it."""
        meter, self._meter = self._meter, _Meter()
        parts = [None] * self._world_size
        mine = (dict(meter.losses), meter.samples, meter.data_wait_s, list(meter.problems))
        if dist.is_initialized():
            dist.all_gather_object(parts, mine)
        else:
            parts = [mine]  # type: ignore[list-item]
        wall_s = time.perf_counter() - meter.began_at
        losses: dict[str, list[float]] = defaultdict(list)
        for part in parts:
            for kind, values in part[0].items():  # type: ignore[index]
                losses[kind] += values
        every = [value for values in losses.values() for value in values]
        return {
            "step": self._state.step,
            "time": time.time(),
            "loss": sum(every) / len(every),
            **{f"loss_{kind}": sum(values) / len(values) for kind, values in sorted(losses.items())},
            "grad_norm": sum(meter.grad_norms) / len(meter.grad_norms),
            "learning_rate": learning_rate(self._run, self._state.step - 1),
            "samples_per_s": sum(part[1] for part in parts) / wall_s,  # type: ignore[index]
            "step_s": wall_s / meter.steps,
            "data_wait_share": sum(part[2] for part in parts) / (wall_s * self._world_size),  # type: ignore[index]
            "problems": [problem for part in parts for problem in part[3]],  # type: ignore[index]
        }

    def _tell(self, line: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.add(line)
        # Validation and samples do not count as training time.
        self._meter.began_at = time.perf_counter()

    def _write_samples(self) -> None:
        """A grid of what the averaged weights make. Sharded weights need all workers for it."""
        if not self._run.samples or (self._rank and self._run.strategy == "ddp"):
            return
        self._call.eval()
        with self._averaged_weights(), self._autocast:
            grid = self._validation.sample_grid(self._device)
        self._call.train()
        if grid is not None and self._rank == 0:
            uri = join(self._run.output, "samples", f"step-{self._state.step:08d}.png")
            self._storage.write_bytes(uri, png_bytes(grid))

    def _averaged_weights(self) -> ExitStack:
        stack, ema = ExitStack(), self._state.ema
        if ema is not None:
            parameters = list(self._state.parameters.values())
            ema.store(parameters)
            ema.copy_to(parameters)
            stack.callback(ema.restore, parameters)
        return stack

    def _checkpoint(self, line: dict[str, Any] | None) -> None:
        """Uploads in the background while training goes on. Every worker must call it: it is a barrier."""
        state = self._state.gather()
        checkpoint = None
        if state is not None:
            folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
            save_state(state, folder)
            checkpoint = Checkpoint.from_directory(str(folder))
            if self._log is not None:
                self._log.write()
        ray.train.report(
            {"step": self._state.step, "loss": line["loss"] if line else None},
            checkpoint=checkpoint,
            checkpoint_dir_name=f"step-{self._state.step:08d}",
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )

    def _finish(self) -> None:
        state = self._state.gather()
        if state is not None:
            export_model(self._run, self._model_dir, state, self._storage)
        if self._log is not None:
            self._log.close()
