"""The training loop in this process: going on, averages, rates, metrics, and what stops it."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from tensorboardX.proto.event_pb2 import Event

from actors.storage import Storage
from pipeline.train_log import _Progress, shown_progress
from pipeline.train_state import TrainState, learning_rate, load_state
from schemas.run import UsageError
from schemas.train_run import TrainRun, TrainStyleRun, TrainTemporalRun
from tests.support.training import difference, losses_of, metrics_of, tensors_of, train_here
from tests.support.training_data import write_manifest, write_picture

SAME = 1e-6  # relative; see `test_a_wrong_data_position_is_far_outside`


Make = Callable[..., TrainStyleRun]


@pytest.fixture
def make(training_model: Path, demo_world: str, tmp_path: Path) -> Make:
    return maker(training_model, demo_world, tmp_path)


def maker(model: Path, data: str, folder: Path) -> Make:
    def run(name: str = "out", **given: Any) -> TrainStyleRun:
        values: dict[str, Any] = {
            "data": data,
            "model": str(model),
            "output": str(folder / name),
            "steps": 4,
            "warmup_steps": 1,
            "learning_rate": 1e-2,
            "image_batch": 2,
            "log_every": 3,
            "checkpoint_every": 2,
            "validation_rows": 2,
            "samples": 0,
        }
        return TrainStyleRun(**values | given)

    return run


@dataclass(frozen=True)
class Whole:
    """A run of four steps that nothing interrupted."""

    output: Path
    checkpoints: dict[int, Path]

    @cached_property
    def losses(self) -> dict[int, float]:
        return losses_of(self.output)

    @cached_property
    def model(self) -> dict[str, torch.Tensor]:
        return tensors_of(self.output / "model")

    def copy_of_checkpoint(self, step: int, folder: Path) -> Path:
        return shutil.copytree(self.checkpoints[step], folder / "checkpoint")


@pytest.fixture(scope="module")
def whole(training_model: Path, demo_world: str, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    run = maker(training_model, demo_world, tmp_path_factory.mktemp("whole"))()
    return Whole(Path(run.output), train_here(run))


def assert_ends_like(run: TrainRun, whole: Whole) -> None:
    """The losses from where it went on, and the exported model."""
    found = losses_of(run.output)
    assert found
    assert found == pytest.approx({step: whole.losses[step] for step in found}, rel=SAME)
    assert difference(tensors_of(f"{run.output}/model"), whole.model) < SAME


# ---- Going on ----


def test_a_run_that_goes_on_is_the_run_that_never_stopped(make: Make, whole: Whole) -> None:
    stopped = make()
    kept = train_here(stopped, stop_at=2)
    assert not (Path(stopped.output) / "model").exists()
    train_here(stopped, checkpoint=kept[2])
    assert_ends_like(stopped, whole)
    # A line at each checkpoint, so that none covers steps on both sides of it.
    assert [line["step"] for line in metrics_of(stopped.output)] == [2, 3, 4]
    assert [line["began_at_step"] for line in metrics_of(stopped.output)] == [0, 2, 2]
    assert metrics_of(stopped.output)[-1]["val_loss_image"] == pytest.approx(
        metrics_of(whole.output)[-1]["val_loss_image"], rel=SAME
    )


def test_mixed_batches_go_on_with_the_kind_that_was_next(make: Make, demo_world: str) -> None:
    def mixed(name: str) -> TrainTemporalRun:
        given = make(name).model_dump(include=set(TrainTemporalRun.model_fields))
        return TrainTemporalRun(**given | {"style_data": demo_world, "image_share": 0.4, "log_every": 1})

    run, again = mixed("whole"), mixed("again")
    kept = train_here(run)
    train_here(again, checkpoint=kept[2])
    assert_ends_like(again, Whole(Path(run.output), kept))
    lines = metrics_of(run.output)
    kinds = [[kind for kind in ("image", "video") if f"loss_{kind}" in line] for line in lines]
    assert kinds == [["video"], ["video"], ["image"], ["video"]]


def test_a_wrong_data_position_is_far_outside(make: Make, whole: Whole, tmp_path: Path) -> None:
    shifted = make()
    train_here(shifted, checkpoint=whole.copy_of_checkpoint(2, tmp_path), shift=1)
    last = losses_of(shifted.output)[4]
    assert abs(last - whole.losses[4]) / whole.losses[4] > 1000 * SAME
    with pytest.raises(AssertionError):
        assert_ends_like(shifted, whole)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["moments", "average", "average_steps"])
def test_every_part_of_a_checkpoint_is_needed(make: Make, whole: Whole, tmp_path: Path, lost: str) -> None:
    folder = whole.copy_of_checkpoint(2, tmp_path)
    state = load_state(folder)
    if lost == "moments":
        state["moments"] = [
            {k: torch.zeros_like(v) for k, v in moment.items()} for moment in state["moments"]
        ]
    elif lost == "average":
        state["average"] = [torch.zeros_like(value) for value in state["average"]]
    else:
        state["average_steps"] = 0
    torch.save(state, folder / "state.pt")
    run = make()
    train_here(run, checkpoint=folder)
    with pytest.raises(AssertionError):
        assert_ends_like(run, whole)


def test_lines_after_the_checkpoint_are_written_again(make: Make, whole: Whole, tmp_path: Path) -> None:
    run = make(steps=4)
    shutil.copytree(whole.output, run.output, ignore=shutil.ignore_patterns("model", "kept-*"))
    before = metrics_of(run.output)
    train_here(run, checkpoint=whole.copy_of_checkpoint(2, tmp_path), stop_at=4)
    after = metrics_of(run.output)
    assert [line["step"] for line in after] == [2, 3, 4]
    assert after[0] == before[0]
    assert [line["began_at_step"] for line in after] == [0, 2, 2]


def test_a_finished_checkpoint_only_writes_the_model(make: Make, whole: Whole, tmp_path: Path) -> None:
    run = make()
    train_here(run, checkpoint=whole.copy_of_checkpoint(4, tmp_path))
    assert difference(tensors_of(f"{run.output}/model"), whole.model) == 0


def test_accumulated_micro_batches_are_one_large_one(make: Make) -> None:
    large, small = make("large", image_batch=4), make("small", image_batch=2, accumulation=2)
    for run in (large, small):
        train_here(run, stop_at=4)
    assert losses_of(small.output) == pytest.approx(losses_of(large.output), rel=1e-4)


# ---- What is optimised and exported ----


def test_the_averaged_weights_are_exported(make: Make) -> None:
    run = make(steps=2, checkpoint_every=1, ema_decay=0.3)
    states = [load_state(folder) for _, folder in sorted(train_here(run).items())]
    exported = tensors_of(f"{run.output}/model")
    # The average warms up: it is the weights after the first step, then decays by `ema_decay`.
    for name, first, second in zip(
        states[0]["names"], states[0]["weights"], states[1]["weights"], strict=True
    ):
        expected = 0.3 * first + 0.7 * second
        assert torch.allclose(exported[name], expected, atol=1e-7)
    assert any(
        not torch.equal(exported[n], w) for n, w in zip(states[1]["names"], states[1]["weights"], strict=True)
    )


def test_without_an_average_the_last_weights_are_exported(make: Make) -> None:
    run = make(ema_decay=0, steps=2)
    state = load_state(train_here(run)[2])
    exported = tensors_of(f"{run.output}/model")
    assert state["average"] == []
    assert all(torch.equal(exported[n], w) for n, w in zip(state["names"], state["weights"], strict=True))


def test_rates_rise_and_fall(make: Make) -> None:
    run = make(steps=12, warmup_steps=4, learning_rate=0.8)
    rates = [learning_rate(run, step) for step in range(12)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == pytest.approx(0.8)
    assert rates[8] == pytest.approx(0.4)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.05
    constant = make(steps=12, warmup_steps=4, learning_rate=0.8, schedule="constant")
    assert {learning_rate(constant, step) for step in range(4, 12)} == {0.8}


def test_the_rate_of_a_step_is_used_and_told(make: Make, whole: Whole) -> None:
    run = make(warmup_steps=3, learning_rate=0.8)
    parameter = torch.nn.Parameter(torch.zeros(1))
    state = TrainState.fresh(run, {"a": parameter})
    for step in range(4):
        before = parameter.item()
        parameter.grad = torch.ones(1)
        state.apply_gradients(run)
        # With gradients that are all the same, Adam's step is as long as the rate; decay takes a little of it.
        assert before - parameter.item() == pytest.approx(learning_rate(run, step), rel=0.05)
    told = {line["step"]: line["learning_rate"] for line in metrics_of(whole.output)}
    assert told == {step: learning_rate(make(), step - 1) for step in (2, 3, 4)}


@pytest.mark.parametrize(("gradient", "kept"), [(30.0, 0.5), (0.1, 0.1)])
def test_long_gradients_are_clipped_and_short_ones_are_not(make: Make, gradient: float, kept: float) -> None:
    run = make(max_grad_norm=0.5)
    parameters = {name: torch.nn.Parameter(torch.zeros(1)) for name in "ab"}
    state = TrainState.fresh(run, parameters)
    parameters["a"].grad, parameters["b"].grad = (
        torch.tensor([0.6 * gradient]),
        torch.tensor([0.8 * gradient]),
    )
    assert state.apply_gradients(run) == pytest.approx(gradient)
    moments = torch.cat([state.optimizer.state[parameter]["exp_avg"] for parameter in parameters.values()])
    assert float(moments.norm()) == pytest.approx(0.1 * kept, rel=1e-4)  # Adam takes 1 - beta1 of a gradient


# ---- What is told ----


def test_metrics_boards_and_pictures_are_there(make: Make) -> None:
    run = make(log_every=1, sample_every=2, samples=2, sample_steps=1, validate_every=2)
    train_here(run)
    lines = metrics_of(run.output)
    assert [("val_loss_image" in line) for line in lines] == [False, True, False, True]
    for line in lines:
        assert line.keys() >= {"step", "time", "loss", "loss_image", "grad_norm", "learning_rate", "problems"}
        assert line["samples_per_s"] > 0
        assert 0 <= line["data_wait_share"] <= 1
    names = sorted(file.name for file in (Path(run.output) / "samples").iterdir())
    assert names == ["step-00000002.png", "step-00000004.png"]
    with Image.open(Path(run.output) / "samples" / names[0]) as grid:
        assert grid.size == (3 * 36, 2 * 36)  # reference, target and what the model makes, of two rows
    assert board_values(Path(run.output) / "tensorboard", "loss") == pytest.approx(
        losses_of(run.output), rel=1e-6
    )


def board_values(folder: Path, name: str) -> dict[int, float]:
    """A scalar by step, from TensorBoard's event files: records of length, checksum, data, checksum."""
    found: dict[int, float] = {}
    for file in folder.iterdir():
        data = file.read_bytes()
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                if value.tag == name:
                    found[event.step] = value.simple_value
            at += 16 + size
    return found


@pytest.mark.parametrize(("validation_rows", "samples"), [(0, 4), (2, 0)])
def test_without_validation_rows_or_samples(make: Make, validation_rows: int, samples: int) -> None:
    run = make(validation_rows=validation_rows, samples=samples, sample_steps=1)
    train_here(run, stop_at=4)
    assert ("val_loss_image" in metrics_of(run.output)[-1]) == bool(validation_rows)
    assert not (Path(run.output) / "samples").exists()


def test_the_validation_loss_does_not_depend_on_how_training_is_cut(
    make: Make,
) -> None:
    found = []
    for name, given in {
        "a": {"image_batch": 4},
        "b": {"image_batch": 6, "seed": 0},
        "c": {"image_batch": 1},
    }.items():
        run = make(name, steps=1, warmup_steps=0, learning_rate=1e-30, validation_rows=6, **given)
        train_here(run, stop_at=1)
        found.append(metrics_of(run.output)[-1]["val_loss_image"])
    assert found[1:] == pytest.approx(found[:1] * 2, rel=1e-5)


def test_the_readers_start_is_no_waiting(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import train_loop

    run = make(steps=1, warmup_steps=0)
    meters: list[Any] = []

    class Meter(train_loop.Meter):
        def metrics(self) -> dict[str, Any]:
            meters.append(self.data_wait_s)
            return super().metrics()

    monkeypatch.setattr(train_loop, "Meter", Meter)
    train_here(run, stop_at=1)
    assert meters[0] < 0.01  # the first micro-batch was made before


def test_what_cannot_be_read_is_in_the_metrics_and_before_the_users_eyes(make: Make, tmp_path: Path) -> None:
    write_picture(tmp_path / "good.png", 0)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [{"uri": name, "caption": "x"} for name in ("good.png", "bad.png")]
    run = make(data=write_manifest(tmp_path / "m.parquet", rows), validation_rows=0, steps=2)
    shown = io.StringIO()
    with shown_progress(Storage(), run, Console(file=shown, width=40), began_at=0):
        train_here(run, stop_at=2)
    [line] = metrics_of(run.output)
    assert line["problems"]
    assert all("bad.png" in problem and "good.png is used" in problem for problem in line["problems"])
    first, *_, last = shown.getvalue().splitlines()
    assert first.startswith("warning: image at position ")
    assert last.startswith("step 2/2, loss ")
    assert last.endswith(" left")


def test_progress_tells_each_line_once_and_where_training_is_taken_up_again(make: Make) -> None:
    run = make(log_every=1)
    shown = io.StringIO()
    lines: list[dict[str, Any]] = []

    def write(*steps: int, began_at: int, at: float) -> None:
        """As a worker would that goes on from `began_at`."""
        same = {"loss": 1.0, "samples_per_s": 1.0, "data_wait_share": 0.0, "step_s": 1.0, "problems": []}
        kept = [line for line in lines if line["step"] <= began_at]
        lines[:] = kept + [same | {"step": s, "time": at + s, "began_at_step": began_at} for s in steps]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        Storage().write_bytes(f"{run.output}/metrics.jsonl", text.encode())

    write(1, 2, 3, began_at=0, at=0)
    progress = _Progress(Storage(), run, Console(file=shown, width=40), began_at=2)
    for steps, began_at, at in [
        ((3, 4), 2, 10),  # what the user was told before
        ((3, 4), 2, 10),
        ((3,), 2, 20),  # after a failure of a worker
        ((4, 5), 3, 30),
        ((1, 2), 0, 40),
    ]:
        write(*steps, began_at=began_at, at=at)
        progress.show_new()
    assert [line.split(",")[0] for line in shown.getvalue().splitlines()] == [
        "step 4/4",
        "goes on from the checkpoint of step 2",
        "step 3/4",
        "goes on from the checkpoint of step 3",
        "step 5/4",
        "begins again at step 0: no checkpoint had been finished",
        "step 2/4",
    ]


# ---- What stops it ----


def test_a_loss_that_is_not_finite_ends_the_run_before_a_checkpoint(
    make: Make, training_model: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(training_model, tmp_path / "broken")
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_out.bias"].fill_(float("nan"))
    save_file(tensors, file, {"format": "pt"})
    run = make(model=str(broken))
    with pytest.raises(UsageError, match=r"loss is nan at step 2: training has diverged; .*--learning-rate"):
        train_here(run)
    assert not list(Path(run.output).glob("kept-*"))


def test_a_checkpoint_of_another_model_is_refused(make: Make, whole: Whole) -> None:
    with pytest.raises(ValueError, match="other parameters"):
        train_here(make(fusion="fixed"), checkpoint=whole.checkpoints[2])
