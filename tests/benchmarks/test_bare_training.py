"""The bare loop takes the job's steps: same pictures, same random numbers, same updates, same losses."""

import json
import sys
from pathlib import Path

import pytest
import torch

from actors.storage import Storage
from actors.training_samples import TrainingSamples
from benchmarks import bare_training
from pipeline.model_info import read_model_info
from pipeline.train import data_plan
from pipeline.train_model import load_model
from pipeline.train_state import TrainState
from schemas.train_run import TrainStyleRun
from stylecrafter.training import draw
from tests.support.models import write_tiny_model
from tests.support.training_data import write_world

STEPS = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainStyleRun:
    folder = tmp_path_factory.mktemp("training")
    write_tiny_model(folder / "model")
    return TrainStyleRun(
        data=write_world(folder),
        model=str(folder / "model"),
        output=str(folder / "output"),
        height=32,
        width=32,
        image_batch=2,
        steps=10,
        warmup_steps=2,
        learning_rate=1e-2,  # a wrong update shows in the next loss
        max_grad_norm=0.05,
        log_every=2,
    )


def test_the_bare_loop_takes_the_jobs_steps(
    run: TrainStyleRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = tmp_path / "run.json", tmp_path / "marks.jsonl"
    config.write_text(run.model_dump_json(exclude_unset=True))
    arguments = f"bare_training --config {config} --steps {STEPS} --threads 1 --precision float32"
    monkeypatch.setattr(sys, "argv", f"{arguments} --output {output}".split())
    bare_training.main()
    marks = [json.loads(line) for line in output.read_text().splitlines()]

    losses = losses_of_the_job(run)
    assert [mark["step"] for mark in marks] == [2, 4]
    assert [mark["loss"] for mark in marks] == pytest.approx(
        [sum(losses[:2]) / 2, sum(losses[2:]) / 2], abs=1e-6
    )
    assert marks[0]["time"] < marks[1]["time"]


def losses_of_the_job(run: TrainStyleRun) -> list[float]:
    """What the job's own data, model and state give, without Ray."""
    storage = Storage()
    samples = TrainingSamples(data_plan(run, read_model_info(storage, run.model), storage))
    pipeline, model = load_model(run, Path(run.model))
    state, losses = TrainState.fresh(run, model.trainable_parameters()), []
    for index in range(STEPS):
        batch = samples.micro_batch(index)
        draws = draw(
            run.seed,
            batch.kind,
            batch.positions_B.tolist(),
            model.latent_shape(1, 32, 32),
            model.options,
            1000,
        )
        target, reference = map(torch.from_numpy, (batch.target_BTHWC, batch.reference_B3HW))
        loss = model(target, pipeline.tokenizer.prompt_ids(batch.captions), reference, draws).mean()
        loss.backward()
        state.apply_gradients(run)
        losses.append(loss.item())
    samples.close()
    return losses
