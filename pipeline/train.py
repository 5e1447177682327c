"""Training on one screen: check what is asked, fit with Ray Train, and leave a model directory."""

import json
import logging
from dataclasses import dataclass
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rich.console import Console

from actors.storage import ObjectNotFound, Storage, is_local, join
from actors.uris import absolute_path
from pipeline.cluster import ray_session
from pipeline.compute import Resources, check_paths, resources
from pipeline.model_info import ModelInfo, read_model_info
from pipeline.train_checkpoints import CHECKPOINTS, Checkpoints
from pipeline.train_data import DataSummary, summarise_data
from pipeline.train_export import model_uri
from pipeline.train_failures import as_training_failure, interrupted_like_others
from pipeline.train_log import say, shown_progress, where_it_goes_on
from pipeline.train_loop import TrainJob
from pipeline.train_worker import train_worker
from schemas.data_plan import DataPlan, ReferencePixels
from schemas.run import UsageError
from schemas.train_run import TrainRun

_HEADROOM_CPUS = 0.25  # Ray Train's and Ray Data's own actors
_IDENTITY = ("run", "train.json")
_PATHS = ("data", "style_data", "validation_data", "model", "output")


@dataclass(frozen=True)
class PreparedTraining:
    """A training run that was found fit to start."""

    run: TrainRun
    job: TrainJob
    model: ModelInfo
    data: DataSummary
    storage: Storage
    cpus_per_worker: float
    use_gpu: bool

    @property
    def is_finished(self) -> bool:
        """Whether an earlier start of this very run has written its model."""
        return self.storage.exists(join(model_uri(self.run), "fingerprint"))

    @property
    def has_begun(self) -> bool:
        """Whether there was an earlier start of this run."""
        return self.storage.exists(join(self.run.output, *_IDENTITY))


def prepare_training(run: TrainRun) -> PreparedTraining:
    """Reads model and manifests, and checks that the run can start, or go on where it stopped.

    Raises:
        UsageError, ManifestError: with what is wrong and what is allowed.
        InfrastructureError: the storage failed.
    """
    run = _with_absolute_paths(run)
    storage = Storage(run.limits)
    available = resources()
    check_paths(run, _PATHS, available)
    model = read_model_info(storage, run.model)
    plan = data_plan(run, model, storage)
    data = summarise_data(plan)
    _check_validation_data(run, plan)
    use_gpu = available.gpus > 0
    cpus, threads = _cpus_per_worker(run, plan, available)
    if use_gpu and run.workers > available.gpus:
        raise UsageError(
            f"workers = {run.workers}: there are {available.gpus:g} GPUs, and each worker needs one"
        )
    precision = run.precision if run.precision != "auto" else ("bfloat16" if use_gpu else "float32")
    prepared = PreparedTraining(
        run, TrainJob(run, plan, threads, precision), model, data, storage, cpus, use_gpu
    )
    _check_same_run(prepared)
    return prepared


def train(prepared: PreparedTraining, console: Console) -> None:
    """Trains until the last step. What stops it on the way leaves checkpoints; the same call goes on from there.

    Raises:
        UsageError, ManifestError, InfrastructureError: a worker's own; other failures of workers as they are.
    """
    run, storage = prepared.run, prepared.storage
    checkpoints = Checkpoints(storage, run)
    step = checkpoints.newest_step() or 0
    if prepared.has_begun:
        say(console, where_it_goes_on(step))
    checkpoints.delete_list_of_ray()
    _write_identity(prepared)
    filesystem, path = storage.arrow_filesystem(run.output)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    with (
        ray_session(),
        as_training_failure(),
        shown_progress(storage, run, console, step),
        interrupted_like_others(),
    ):
        result = TorchTrainer(
            train_worker,  # type: ignore[arg-type]
            train_loop_config={"job": prepared.job},
            scaling_config=ScalingConfig(
                num_workers=run.workers,
                use_gpu=prepared.use_gpu,
                resources_per_worker={"CPU": prepared.cpus_per_worker}
                | ({"GPU": 1} if prepared.use_gpu else {}),
            ),
            run_config=RunConfig(
                name=CHECKPOINTS,
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=run.max_failures),
            ),
        ).fit()
    if isinstance(failure := getattr(result, "return_value", None), Exception):
        raise failure


def data_plan(run: TrainRun, model: ModelInfo, storage: Storage) -> DataPlan:
    """The stream of the run's data, in the sizes that the model has or the run gives.

    Raises:
        UsageError: a size that the model cannot have.
    """
    defaults = model.defaults
    height, width = run.height or defaults["height"], run.width or defaults["width"]
    for name, value in (("height", height), ("width", width)):
        if value % model.pixel_multiple:
            raise UsageError(f"{name} = {value}: must be a multiple of {model.pixel_multiple} for this model")
    given = run.model_dump()
    own = {name: given[name] for name in DataPlan.model_fields if given.get(name) is not None}
    return DataPlan.model_validate(
        own
        | {
            "manifests": run.manifests,
            "height": height,
            "width": width,
            "num_frames": run.num_frames or defaults["num_frames"],
            "references": run.stage not in ("base", "depth"),
            "depth": run.stage == "depth",
            "reference_pixels": _reference_pixels(storage, run.model),
            "limits": run.limits,
        }
    )


def _with_absolute_paths(run: TrainRun) -> TrainRun:
    """Local paths mean this process's folder, in workers too, and wherever the run goes on."""
    given = {name: uri for name in _PATHS if (uri := getattr(run, name, None))}
    return run.model_copy(update={name: absolute_path(uri) for name, uri in given.items() if is_local(uri)})


def _check_validation_data(run: TrainRun, plan: DataPlan) -> None:
    if run.validation_data and run.validation_rows:
        try:
            summarise_data(plan.model_copy(update={"manifests": (run.validation_data,)}))
        except UsageError as error:
            raise UsageError(f"validation_data = {run.validation_data!r}: {error}") from None


def _reference_pixels(storage: Storage, model: str) -> ReferencePixels:
    uri = join(model, "feature_extractor", "preprocessor_config.json")
    found = json.loads(storage.read_bytes(uri))
    return ReferencePixels(**{name: found[name] for name in ReferencePixels.model_fields if name in found})


def _cpus_per_worker(run: TrainRun, plan: DataPlan, available: Resources) -> tuple[float, int]:
    """CPU share and torch threads of a worker; what the readers reserve is left free.

    Raises:
        UsageError: they do not fit.
    """
    free = available.cpus - _HEADROOM_CPUS - run.workers * plan.cpus
    cpus = run.cpus_per_worker or max(0.1, free / run.workers)
    if run.workers * cpus > free + 1e-6:
        raise UsageError(
            f"workers = {run.workers}: with {cpus:g} CPUs each, {plan.cpus:g} for the readers of each and "
            f"{_HEADROOM_CPUS:g} for Ray they need {run.workers * (cpus + plan.cpus) + _HEADROOM_CPUS:g} CPUs, but "
            f"there are {available.cpus:g}; use fewer workers or a smaller --cpus-per-worker"
        )
    # Whole reserved cores only: threads wait for the slowest of them, which would be the one that shares its core with
    # a reader.
    return cpus, max(1, int(cpus))


def _identity(prepared: PreparedTraining) -> dict[str, Any]:
    identity = prepared.run.identity()
    return identity | {
        "model fingerprint": prepared.model.fingerprint,
        "data fingerprint": prepared.data.fingerprint,
    }


def _check_same_run(prepared: PreparedTraining) -> None:
    """A run that goes on with another config or other data would be neither the one nor the other."""
    try:
        began = json.loads(prepared.storage.read_bytes(join(prepared.run.output, *_IDENTITY)))
    except ObjectNotFound:
        return
    now = json.loads(json.dumps(_identity(prepared)))
    differing = sorted(name for name in began.keys() | now.keys() if began.get(name) != now.get(name))
    if differing:
        told = "; ".join(f"{name} was {began.get(name)!r}, is {now.get(name)!r}" for name in differing)
        raise UsageError(
            f"output = {prepared.run.output!r} holds a training run with another config: {told}. "
            "Give the same config to go on with it, or another output"
        )


def _write_identity(prepared: PreparedTraining) -> None:
    body = json.dumps(_identity(prepared), indent=2).encode()
    prepared.storage.write_bytes(join(prepared.run.output, *_IDENTITY), body)
