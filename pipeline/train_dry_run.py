"""What a training run would train and hold, counted without loading a weight."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.table import Table

from actors.storage import Storage
from pipeline.model_info import read_model_info
from pipeline.train_model import begin_anew, training_model
from schemas.run import UsageError
from schemas.train_run import PUBLISHED, TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.meta_pipeline import meta_pipeline, published_meta_pipeline
from stylecrafter.training import ParameterGroup, TrainingModel, validation_draws

_FLOAT = 4  # bytes
_GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one worker holds at the most; without the framework's own and what fragmentation costs."""

    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments
    average: int
    activations: int  # kept for the backward pass of one micro-batch, counted tensor by tensor

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


def describe_model(run: TrainRun) -> Table:
    """The table that `--dry-run` prints.

    Raises:
        UsageError: the options do not go together, or the model directory is not whole.
    """
    model, pipeline = _model(run)
    groups = model.parameter_groups()
    table = Table(title=f"{run.stage} stage of {run.model}, nothing is trained", title_justify="left")
    for name in ("", "parameters", "trained"):
        table.add_column(name, justify="right" if name else "left")
    for group in groups:
        table.add_row(group.name, f"{group.total:,}", f"{group.trainable:,}" if group.trainable else "-")
    adapter = [group for group in groups if group.name.startswith("adapter.")]
    if len(adapter) > 1:
        table.add_row("adapter, all of it", *(f"{total:,}" for total in _sums(adapter)))
    table.add_row("together", *(f"{total:,}" for total in _sums(groups)), end_section=True)
    memory = estimate_memory(run, model, pipeline)
    sharing = f"{run.workers} x {run.strategy}" if run.workers > 1 else "one worker"
    for name in ("weights", "gradients", "optimizer", "average", "activations", "total"):
        label = f"memory per GPU, {sharing}, {_precision(run)}" if name == "total" else f"  {name}"
        table.add_row(label, f"{getattr(memory, name) / _GIB:.2f} GiB", "")
    return table


def estimate_memory(run: TrainRun, model: TrainingModel, pipeline: StyleCrafterPipeline) -> MemoryEstimate:
    """What the tensors of one worker take; its largest kind of micro-batch counts."""
    trainable = sum(parameter.numel() for parameter in model.trainable_parameters().values())
    shards = run.workers if run.strategy == "fsdp" else 1
    return MemoryEstimate(
        weights=_weight_bytes(run, model),
        gradients=_FLOAT * trainable // shards,
        optimizer=2 * _FLOAT * trainable // shards,
        average=_FLOAT * trainable // shards if run.ema_decay else 0,
        activations=max(
            _activation_bytes(run, model, pipeline, kind)
            for kind, present in (("image", run.image_share > 0), ("video", run.image_share < 1))
            if present
        ),
    )


def _model(run: TrainRun) -> tuple[TrainingModel, StyleCrafterPipeline]:
    if run.model == PUBLISHED:
        pipeline = published_meta_pipeline()
    else:
        storage = Storage(run.limits)
        read_model_info(storage, run.model)  # says what is missing
        try:
            pipeline = meta_pipeline(storage.local_copy(run.model))
        except OSError as error:
            raise UsageError(f"model = {run.model!r}: is not a model directory: {error}") from None
    with torch.device("meta"):
        begin_anew(run, pipeline)
        return training_model(run, pipeline), pipeline


def _sums(groups: list[ParameterGroup]) -> tuple[int, int]:
    return sum(group.total for group in groups), sum(group.trainable for group in groups)


def _precision(run: TrainRun) -> str:
    return "bfloat16" if run.precision == "auto" else run.precision


def _weight_bytes(run: TrainRun, model: TrainingModel) -> int:
    """Weights of one worker; of sharded ones its share, and what is gathered at the same time."""
    sizes = {
        parameter: _bytes_each(component, _precision(run)) * parameter.numel()
        for component in model.children()
        for parameter in component.parameters()
    }
    total = sum(sizes.values())
    if run.workers == 1 or run.strategy == "ddp":
        return total
    units = [sum(sizes[parameter] for parameter in unit.parameters()) for unit in model.sharding_units()]
    # A unit is gathered while it runs; what belongs to none stays gathered until the backward pass is through.
    return total // run.workers + max(units) + total - sum(units)


def _bytes_each(component: torch.nn.Module, precision: str) -> int:
    """Frozen components are held in half precision, see `use_half_precision_where_frozen`."""
    frozen = not any(parameter.requires_grad for parameter in component.parameters())
    return 2 if frozen and precision == "bfloat16" else _FLOAT


def _activation_bytes(run: TrainRun, model: TrainingModel, pipeline: StyleCrafterPipeline, kind: str) -> int:
    """Bytes that a forward pass keeps for the backward pass: it runs on the meta device, with shapes alone."""
    settings = pipeline.generation_config
    frames = (run.num_frames or settings["num_frames"]) if kind == "video" else 1
    height, width = run.height or settings["height"], run.width or settings["width"]
    batch = run.video_batch if kind == "video" else run.image_batch
    shape = model.latent_shape(frames, height, width)
    draws = validation_draws(0, kind, range(1), 1, shape, model.scheduler.config.num_train_timesteps)
    side = pipeline.feature_extractor.size
    styled = run.stage in ("style", "joint") or (run.stage == "temporal" and kind == "image")
    with torch.device("meta"):
        target = torch.empty(batch, frames, height, width, 3, dtype=torch.uint8)
        reference = torch.empty(batch, 3, side, side) if styled else None
        ids = model.empty_ids_1S.to("meta").expand(batch, -1)
        many = type(draws)(
            *(value.to("meta").expand(batch, *value.shape[1:]) for value in vars(draws).values())
        )
        # What half precision saves is what autocast would make of the same tensors: floats of half the size.
        dtype = torch.bfloat16 if _precision(run) == "bfloat16" else torch.float32
        model = model.to(dtype)
        with _counted(model) as kept:
            model(target, ids, reference, many).mean()
    return sum(kept.values())


@contextlib.contextmanager
def _counted(model: TrainingModel) -> Iterator[dict[int, int]]:
    """Bytes of every tensor that autograd keeps, by storage; weights are not counted."""
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            key = storage._cdata
            if key not in kept:
                alive.append(tensor)
                kept[key] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
