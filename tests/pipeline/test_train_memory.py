"""The memory estimate of a dry run, against what PyTorch's allocator measures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from actors.storage import Storage
from examples.untrained_model import build_untrained_pipeline
from pipeline.train_dry_run import _model
from pipeline.train_memory import MemoryEstimate, _micro_batch, estimate_memory
from pipeline.train_model import load_model
from schemas.train_run import TrainJointRun, TrainRun, TrainStyleRun, TrainTemporalRun

CLOSE = 0.02  # relative; what operations hold while they run is measured and not counted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose UNet takes more memory than its autoencoder."""
    folder = tmp_path_factory.mktemp("model")
    build_untrained_pipeline(seed=1, channels=(64, 128), layers_per_block=1).save_pretrained(folder)
    return folder


def run_of(config: type[TrainRun], model: Path, **given: Any) -> TrainRun:
    styles = {} if config is TrainStyleRun else {"style_data": "s", "image_share": 0}
    values: dict[str, Any] = {"data": "d", "model": str(model), "output": "o", "precision": "float32"}
    return config(**values | styles | {"height": 64, "width": 64, "image_batch": 8} | given)


def estimate(run: TrainRun) -> MemoryEstimate:
    return estimate_memory(run, *_model(run))


def measured_peak(run: TrainRun) -> int:
    """Bytes that the allocator has given and not taken back, at most, in a forward and backward pass."""
    pipeline, model = load_model(run, Storage().local_copy(run.model))
    for parameter in model.trainable_parameters().values():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    inputs = _micro_batch(run, model, pipeline, "image" if run.image_share else "video")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(*inputs).mean().backward()
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(sizes.cumsum(0).max())


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("config", [TrainStyleRun, TrainTemporalRun])
def test_activations_are_what_the_allocator_measures(
    config: type[TrainRun], gradient_checkpointing: bool, model: Path
) -> None:
    run = run_of(config, model, gradient_checkpointing=gradient_checkpointing)
    counted, measured = estimate(run).activations, measured_peak(run)
    print(f"{run.stage}: counted {counted / 2**20:.1f} MiB, measured {measured / 2**20:.1f} MiB")
    assert counted == pytest.approx(measured, rel=CLOSE)


def test_checkpointing_keeps_less_and_a_larger_batch_more(model: Path) -> None:
    plain, recomputed, larger = (
        estimate(run_of(TrainTemporalRun, model, **given)).activations
        for given in ({}, {"gradient_checkpointing": True}, {"video_batch": 2})
    )
    assert recomputed < 0.7 * plain
    assert larger == pytest.approx(2 * plain, rel=0.1)


def test_half_precision_takes_between_half_and_all(model: Path) -> None:
    single, half = (
        estimate(run_of(TrainJointRun, model, precision=precision)) for precision in ("float32", "bfloat16")
    )
    assert 0.5 * single.activations < half.activations < 0.95 * single.activations
    recomputed = estimate(run_of(TrainJointRun, model, precision="bfloat16", gradient_checkpointing=True))
    assert recomputed.activations < 0.8 * half.activations
    assert half.weights < single.weights  # the frozen components'
    assert (half.gradients, half.optimizer) == (single.gradients, single.optimizer)
