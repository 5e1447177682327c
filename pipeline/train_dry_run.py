"""What a training run would train and hold, counted without loading a weight."""

import torch
from rich.table import Table

from actors.storage import Storage
from pipeline.model_info import read_model_info
from pipeline.train_memory import estimate_memory, precision_on_gpu
from pipeline.train_model import begin_anew, training_model
from schemas.run import UsageError
from schemas.train_run import PUBLISHED, TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.meta_pipeline import meta_pipeline, published_meta_pipeline
from stylecrafter.training import ParameterGroup, TrainingModel

_GIB = 2**30


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
        label = f"memory per GPU, {sharing}, {precision_on_gpu(run)}" if name == "total" else f"  {name}"
        table.add_row(label, f"{getattr(memory, name) / _GIB:.2f} GiB", "")
    return table


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
