"""The model of a training run: loaded, given new parts where the run asks for them, and shared among workers."""

from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import T2IAdapter
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from schemas.run import UsageError
from schemas.train_run import AdapterRun, TrainBaseRun, TrainDepthRun, TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.depth import new_depth_adapter
from stylecrafter.style_adapter import StyleAdapter
from stylecrafter.training import TrainingModel, TrainingOptions


def load_model(run: TrainRun, model_dir: Path) -> tuple[StyleCrafterPipeline, TrainingModel]:
    """The pipeline with the parts that the run begins anew, and the training model around it.

    New weights are a function of the run's seed alone.

    Raises:
        UsageError: the run and the model do not go together.
    """
    pipeline = StyleCrafterPipeline.from_pretrained(model_dir, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    begin_anew(run, pipeline)
    return pipeline, training_model(run, pipeline)


def begin_anew(run: TrainRun, pipeline: StyleCrafterPipeline) -> None:
    """Replaces the components that the run does not go on with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        if isinstance(run, TrainBaseRun):
            if run.new_unet:
                pipeline.register_modules(unet=type(pipeline.unet).from_config(pipeline.unet.config))
            if run.prediction_type is not None:
                scheduler = type(pipeline.scheduler).from_config(
                    pipeline.scheduler.config, prediction_type=run.prediction_type
                )
                pipeline.register_modules(scheduler=scheduler)
        if isinstance(run, TrainDepthRun) and run.new_depth_adapter:
            pipeline.register_modules(depth_adapter=_new_depth_adapter(pipeline))
        if isinstance(run, AdapterRun) and run.new_adapter:
            adapter = StyleAdapter.from_config(pipeline.style_adapter.config, fusion=run.fusion)
            pipeline.register_modules(style_adapter=adapter)


def _new_depth_adapter(pipeline: StyleCrafterPipeline) -> T2IAdapter:
    try:
        return new_depth_adapter(pipeline.unet.config, pipeline.vae_scale_factor)
    except ValueError as error:
        raise UsageError(f"this model's UNet can have no depth adapter: {error}") from error


def training_model(run: TrainRun, pipeline: StyleCrafterPipeline) -> TrainingModel:
    """The training model of the run's stage.

    Raises:
        UsageError: the options do not go together, or with this model.
    """
    names = {field.name for field in fields(TrainingOptions)}
    values: dict[str, Any] = {
        name: value for name, value in run.model_dump().items() if name in names and value is not None
    }
    if isinstance(run, AdapterRun):
        # With appended tokens the text's own projections serve the style too: there is nothing to copy.
        values["copy_text_projections"] = run.new_adapter and run.fusion != "append"
    try:
        model = TrainingModel(pipeline, run.stage, TrainingOptions(**values))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if run.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
    return model


def use_half_precision_where_frozen(model: TrainingModel) -> None:
    """Components of which nothing is trained need no float32 copy beside an autocast forward."""
    for component in model.children():
        if not any(parameter.requires_grad for parameter in component.parameters()):
            component.bfloat16()


def share_among_workers(model: TrainingModel, run: TrainRun, world_size: int) -> nn.Module:
    """The model as this worker of several calls it: DDP around it, or its own parameters sharded in place (FSDP2)."""
    if world_size == 1:
        return model
    if run.strategy == "ddp":
        return DistributedDataParallel(model, broadcast_buffers=False)
    for module in (*model.sharding_units(), model):
        fully_shard(module)  # in place
    return model


def without_sync(model: nn.Module, is_last: bool) -> Any:
    """Gradients of all but the last micro-batch of a step stay on their worker."""
    if isinstance(model, DistributedDataParallel) and not is_last:
        return model.no_sync()
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last)
    return nullcontext()
