"""What a training worker holds in memory, counted without any: a step is run on tensors that have shapes alone."""

import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pipeline.train_model import use_half_precision_where_frozen
from schemas.train_run import TrainRun
from stylecrafter import StyleCrafterPipeline
from stylecrafter.training import TrainingModel, validation_draws

_FLOAT = 4  # bytes
_IN_FLOAT32 = (F.group_norm, F.layer_norm, F.softmax, torch.softmax, torch.Tensor.softmax)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one worker holds at the most; without the framework's own and what fragmentation costs."""

    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments
    average: int
    activations: int  # everything else of one micro-batch at the step's peak

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


def precision_on_gpu(run: TrainRun) -> str:
    """The precision that the run has where there are GPUs."""
    return "bfloat16" if run.precision == "auto" else run.precision


def estimate_memory(run: TrainRun, model: TrainingModel, pipeline: StyleCrafterPipeline) -> MemoryEstimate:
    """What the tensors of one worker take; its largest kind of micro-batch counts.

    Args:
        model: on the meta device; it is used up.
    """
    trainable = sum(parameter.numel() for parameter in model.trainable_parameters().values())
    shards = run.workers if run.strategy == "fsdp" else 1
    if precision_on_gpu(run) == "bfloat16":
        use_half_precision_where_frozen(model)
    return MemoryEstimate(
        weights=_weight_bytes(run, model),
        gradients=_FLOAT * trainable // shards,
        optimizer=2 * _FLOAT * trainable // shards,
        average=_FLOAT * trainable // shards if run.ema_decay else 0,
        activations=_activation_bytes(run, model, pipeline),
    )


def _weight_bytes(run: TrainRun, model: TrainingModel) -> int:
    """Weights of one worker; of sharded ones its share, and what is gathered at the same time."""
    sizes = {parameter: parameter.numel() * parameter.element_size() for parameter in model.parameters()}
    total = sum(sizes.values())
    if run.workers == 1 or run.strategy == "ddp":
        return total
    units = [sum(sizes[parameter] for parameter in unit.parameters()) for unit in model.sharding_units()]
    # A unit is gathered while it runs; what belongs to none stays gathered until the backward pass is through.
    return total // run.workers + max(units) + total - sum(units)


def _activation_bytes(run: TrainRun, model: TrainingModel, pipeline: StyleCrafterPipeline) -> int:
    """The peak of a micro-batch's forward and backward pass, of its largest kind.

    The tensors claim to be on the CPU, where attention is fused as it is on a GPU; on the meta device it is not.
    """
    kinds = [
        kind for kind, share in (("image", run.image_share), ("video", 1 - run.image_share)) if share > 0
    ]
    inputs = [_micro_batch(run, model, pipeline, kind) for kind in kinds]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        return max(peak_of_step(model, batch, precision_on_gpu(run)) for batch in inputs)


def _micro_batch(
    run: TrainRun, model: TrainingModel, pipeline: StyleCrafterPipeline, kind: str
) -> tuple[Any, ...]:
    """What the model is called with; of any content."""
    settings = pipeline.generation_config
    frames = (run.num_frames or settings["num_frames"]) if kind == "video" else 1
    height, width = run.height or settings["height"], run.width or settings["width"]
    batch = run.video_batch if kind == "video" else run.image_batch
    shape = model.latent_shape(frames, height, width)
    draws = validation_draws(0, kind, range(1), 1, shape, model.scheduler.config.num_train_timesteps)
    many = type(draws)(*(value.expand(batch, *value.shape[1:]) for value in vars(draws).values()))
    side = pipeline.feature_extractor.size
    styled = run.stage in ("style", "joint") or (run.stage == "temporal" and kind == "image")
    target = torch.empty(batch, frames, height, width, 3, dtype=torch.uint8)
    return (
        target,
        pipeline.tokenizer.prompt_ids([""]).expand(batch, -1),
        torch.empty(batch, 3, side, side) if styled else None,
        many,
        False,
        target if run.stage == "depth" else None,
    )


def peak_of_step(model: TrainingModel, inputs: tuple[Any, ...], precision: str) -> int:
    """Bytes that a forward and backward pass holds at its peak, besides weights, inputs and their gradients."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
        for parameter in model.trainable_parameters().values()
    ]
    is_half = precision == "bfloat16"
    besides = (*model.parameters(), *model.buffers())
    try:
        with _Peak(besides) as peak, _NormsInFloat32() if is_half else nullcontext():
            with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
                loss = model(*inputs).mean()
            _backward(loss)
    finally:
        for hook in hooks:
            hook.remove()
    return peak.bytes


def _backward(loss: torch.Tensor) -> None:
    """As `loss.backward()`, which would not let modes see what is computed again."""
    torch.autograd.Variable._execution_engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


class _Peak(TorchDispatchMode):
    """Counts the storages that operations make, each from then until nothing refers to it any more."""

    def __init__(self, besides: Iterable[torch.Tensor]):
        super().__init__()
        self.bytes = self._now = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in besides}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.bytes = max(self.bytes, self._now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


class _NormsInFloat32(TorchFunctionMode):
    """A GPU's autocast computes norms and softmax in float32; a CPU's does not."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _IN_FLOAT32:
            args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.float, (args, kwargs))
        return function(*args, **(kwargs or {}))
