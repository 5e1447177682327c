"""One optimisation step of each stage at a width that is no toy's."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.untrained_model import build_untrained_pipeline
from schemas.train_run import TrainBaseRun, TrainJointRun, TrainRun, TrainStyleRun, TrainTemporalRun
from tests.support.training import metrics_of, train_here, write_demo_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mid-size")
    pipeline = build_untrained_pipeline(seed=1, channels=(128, 256, 512, 512), layers_per_block=1)
    pipeline.generation_config |= {"height": 256, "width": 256, "num_frames": 8}
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_demo_world(tmp_path_factory.mktemp("world"), clips=2, stills=2, styles=2)


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (TrainBaseRun, {"image_share": 0}),
        (TrainStyleRun, {"image_batch": 2}),
        (TrainTemporalRun, {"image_share": 0}),
        (TrainJointRun, {"image_share": 0}),
    ],
)
def test_a_step(
    config: type[TrainRun],
    given: dict[str, Any],
    model: Path,
    world: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    styles = {"style_data": world} if config in (TrainTemporalRun, TrainJointRun) else {}
    run = config(
        data=world,
        model=str(model),
        output=str(tmp_path),
        steps=1,
        warmup_steps=0,
        ema_decay=0,
        validation_rows=0,
        samples=0,
        gradient_checkpointing=True,
        **given,
        **styles,
    )
    began_at = time.perf_counter()
    train_here(run, stop_at=1)
    [line] = metrics_of(tmp_path)
    with capsys.disabled():
        print(
            f"\n{run.stage}: {line['step_s']:.1f} s for the step, {time.perf_counter() - began_at:.1f} s in all, "
            f"loss {line['loss']:.4f}, gradient norm {line['grad_norm']:.4f}"
        )
    assert 0.5 < line["loss"] < 3
    assert 0 < line["grad_norm"] < float("inf")
    assert torch.isfinite(torch.tensor(line["grad_norm"]))
