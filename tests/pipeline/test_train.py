"""Training with Ray Train: workers, checkpoints, what ends a run and what goes on."""

import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import pipeline.train
from pipeline.compute import Resources
from pipeline.train import prepare_training, train
from schemas.run import UsageError
from schemas.train_run import TrainRun, TrainStyleRun, TrainTemporalRun
from tests.support.training import apart, losses_of, metrics_of, tensors_of, train_here
from tests.support.training_data import write_manifest

pytestmark = pytest.mark.usefixtures("local_ray")

# Relative. Workers add gradients in another order; the data position matters 1e-2 and more.
SAME = 1e-5
SAME_WEIGHTS = 5e-3
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def make(training_model: Path, demo_world: str, tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str, config: type[TrainRun] = TrainStyleRun, **given: Any) -> Any:
        values: dict[str, Any] = {
            "data": demo_world,
            "model": str(training_model),
            "output": str(folder / name),
            "steps": 4,
            "warmup_steps": 1,
            "image_batch": 2,
            "log_every": 1,
            "checkpoint_every": 1,
            "keep_checkpoints": 2,
            "validation_rows": 2,
            "samples": 0,
            "max_failures": 0,
        }
        if config is TrainTemporalRun:
            values |= {"style_data": demo_world, "image_share": 0.5}
        else:
            values |= {"new_adapter": False}  # so that it is known where the weights come from
        return config(**values | given)

    return run


def fit(run: TrainRun) -> str:
    """Trains with Ray; what a person is told."""
    shown = io.StringIO()
    train(prepare_training(run), Console(file=shown, width=60))
    return shown.getvalue()


def checkpoints(run: TrainRun) -> list[str]:
    return sorted(folder.name for folder in (Path(run.output) / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def two_workers(make: Make, local_ray: None) -> TrainStyleRun:
    """A finished run of two workers."""
    run: TrainStyleRun = make("two", workers=2)
    fit(run)
    return run


def assert_same(left: TrainRun, right: TrainRun) -> None:
    assert losses_of(left.output) == pytest.approx(losses_of(right.output), rel=SAME)
    last, other = metrics_of(left.output)[-1], metrics_of(right.output)[-1]
    for name in [name for name in last if name.startswith(("val_loss", "grad_norm"))]:
        assert last[name] == pytest.approx(other[name], rel=SAME)
    distance = apart(f"{left.output}/model", f"{right.output}/model", right.model)
    print(f"losses of {left.output} and {right.output}: {worst(left, right):.1e}, weights {distance:.1e}")
    assert distance < SAME_WEIGHTS


def worst(left: TrainRun, right: TrainRun) -> float:
    """The largest relative difference of losses."""
    others = losses_of(right.output)
    return max(abs(loss / others[step] - 1) for step, loss in losses_of(left.output).items())


def test_two_workers_are_one_that_accumulates_two(make: Make, two_workers: TrainStyleRun) -> None:
    one = make("one", accumulation=2)
    train_here(one)
    assert_same(two_workers, one)
    shifted = make("shifted", accumulation=2)
    train_here(shifted, shift=1)
    assert abs(losses_of(shifted.output)[1] / losses_of(one.output)[1] - 1) > 1000 * SAME
    assert apart(f"{shifted.output}/model", f"{one.output}/model", one.model) > 20 * SAME_WEIGHTS


def test_the_newest_checkpoints_are_kept(two_workers: TrainStyleRun) -> None:
    assert checkpoints(two_workers) == ["step-00000003", "step-00000004"]


def test_a_finished_run_is_told_from_others(two_workers: TrainStyleRun, make: Make) -> None:
    assert prepare_training(two_workers).is_finished
    assert not prepare_training(make("fresh")).is_finished
    # The same steps by another number of workers, and what is not of the training itself.
    assert prepare_training(make("two", accumulation=2, log_every=7, checkpoint_every=9)).is_finished


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"learning_rate": 0.5}, r"learning_rate was 0\.0001, is 0\.5\. Give the same config"),
        ({"steps": 5, "seed": 1}, r"seed was 0, is 1; steps was 4, is 5\."),
        ({"workers": 1}, r"micro_batches_per_step was 2, is 1\."),
    ],
)
def test_another_config_is_refused_by_the_name_of_its_field(
    two_workers: TrainStyleRun, make: Make, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=f"holds a training run with another config: {told}"):
        prepare_training(make("two", **{"workers": 2} | given))


def test_other_data_under_the_same_name_is_refused(make: Make, demo_world: str, tmp_path: Path) -> None:
    table = pq.read_table(demo_world)
    data = tmp_path / "m.parquet"
    pq.write_table(table, data)
    run = make("data", data=str(data))
    identity = Path(run.output) / "run" / "train.json"
    identity.parent.mkdir(parents=True)
    pipeline.train._write_identity(prepare_training(run))
    prepare_training(run)
    pq.write_table(table.slice(1), data)
    with pytest.raises(UsageError, match="data fingerprint was"):
        prepare_training(run)


# ---- What cannot be ----


def test_what_is_wrong_is_told_before_anything_starts(make: Make, demo_world: str, tmp_path: Path) -> None:
    table = pq.read_table(demo_world)
    videos = str(tmp_path / "videos.parquet")
    pq.write_table(table.filter([kind == "video" for kind in table["kind"].to_pylist()]), videos)
    refused = {
        "image_share = 1 needs images, but the manifests have 0 images, 6 videos": {"data": videos},
        r"validation_data = '.*videos.parquet': image_share = 1 needs images": {"validation_data": videos},
        "height = 33: must be a multiple of": {"height": 33},
        "workers = 3: with": {"workers": 3, "cpus_per_worker": 1},
        "model = '.*': no generation_config.json there": {"model": str(tmp_path)},
    }
    for told, given in refused.items():
        with pytest.raises(UsageError, match=told):
            prepare_training(make("refused", **given))
    assert not Path(make("refused").output).exists()


def test_local_paths_on_a_cluster(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.train, "resources", lambda: Resources(cpus=8, gpus=0, nodes=2))
    with pytest.raises(UsageError, match=r"data = .*: a local path on a cluster of 2 nodes"):
        prepare_training(make("nodes"))


def test_local_paths_mean_the_callers_folder(
    make: Make, training_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(training_model.parent)
    prepared = prepare_training(make("relative", model=training_model.name))
    assert prepared.run.model == prepared.job.run.model == str(training_model)


@pytest.mark.slow
def test_data_that_cannot_be_read_is_told_at_once(make: Make, tmp_path: Path) -> None:
    rows = [{"uri": f"{index}.png", "caption": "x"} for index in range(40)]
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    run = make("unreadable", data=manifest, validation_rows=0, max_failures=3)
    with pytest.raises(UsageError, match="none of 32 rows in a row can be read"):
        fit(run)


# ---- What several workers share ----


@pytest.mark.slow
@pytest.mark.parametrize("config", [TrainStyleRun, TrainTemporalRun])
def test_sharded_workers_are_one_that_accumulates_two(make: Make, config: type[TrainRun]) -> None:
    name = config.__name__
    two = make(
        f"sharded-{name}", config, workers=2, strategy="fsdp", samples=2, sample_steps=1, validate_every=2
    )
    one = make(f"whole-{name}", config, accumulation=2, samples=2, sample_steps=1, validate_every=2)
    fit(two)
    train_here(one)
    assert_same(two, one)
    grids = [next((Path(run.output) / "samples").iterdir()).read_bytes() for run in (two, one)]
    assert all(grids)


@pytest.mark.slow
def test_sharded_workers_accumulate_and_go_on_as_one(make: Make) -> None:
    """Two sharded workers that accumulate, stopped, then one worker: the state does not know who trained."""
    given = {"strategy": "fsdp", "steps": 3}
    two = make("sharded-four", workers=2, accumulation=2, **given)
    one = make("four", accumulation=4, **given)
    fit(two)
    train_here(one)
    assert_same(two, one)
    again = make("four-again", accumulation=4, **given)
    train_here(again, checkpoint=Path(two.output) / "checkpoints" / "step-00000002")
    assert losses_of(again.output)[3] == pytest.approx(losses_of(one.output)[3], rel=SAME)


@pytest.mark.slow
def test_sharded_workers_in_half_precision(make: Make) -> None:
    run = make(
        "half-precision", workers=2, strategy="fsdp", precision="bfloat16", steps=2, samples=1, sample_steps=1
    )
    fit(run)
    assert metrics_of(run.output)[-1]["loss"] < 3
    assert {
        str(value.dtype) for value in tensors_of(f"{run.output}/model").values() if value.is_floating_point()
    } == {"torch.float32"}


# ---- What dies ----


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_goes_on_from_the_newest_whole_checkpoint_whatever_ray_noted(make: Make, workers: int) -> None:
    run = make(f"unnoted-{workers}", workers=workers, accumulation=2 // workers)
    whole = make(f"noted-{workers}", accumulation=2)
    kill_by_hand(run, train_here(whole)[2])
    assert where_it_said(fit(run)) == ["goes on from the checkpoint of step 2"]
    assert [line["began_at_step"] for line in metrics_of(run.output)] == [2, 2]
    assert losses_of(run.output) == pytest.approx({s: losses_of(whole.output)[s] for s in (3, 4)}, rel=SAME)
    assert apart(f"{run.output}/model", f"{whole.output}/model", whole.model) < SAME_WEIGHTS
    assert checkpoints(run) == ["step-00000003", "step-00000004"]


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_says_that_it_begins_again(make: Make) -> None:
    run = make("early", steps=2)
    kill_by_hand(run, None)
    assert where_it_said(fit(run)) == ["begins again at step 0: no checkpoint had been finished"]
    assert sorted(losses_of(run.output)) == [1, 2]


def kill_by_hand(run: TrainRun, uploaded: Path | None) -> None:
    """The output of a run that was killed during the upload of step 3, while Ray wrote its list of checkpoints."""
    pipeline.train._write_identity(prepare_training(run))
    folder = Path(run.output) / "checkpoints"
    (folder / "step-00000003").mkdir(parents=True)
    (folder / "checkpoint_manager_snapshot.json").write_text(
        '{"ray_version": "2.60.0", "checkpoint_results": ['
    )
    (folder / "step-00000003" / "state.pt").write_bytes(b"PK")
    if uploaded is not None:
        shutil.copytree(uploaded, folder / "step-00000002")
        whole = (uploaded / "state.pt").read_bytes()
        (folder / "step-00000003" / "state.pt").write_bytes(whole[: len(whole) * 2 // 3])


def where_it_said(told: str) -> list[str]:
    return [line for line in told.splitlines() if "goes on" in line or "begins" in line]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_worker_costs_nothing_but_time(make: Make, workers: int) -> None:
    steps = 120  # so many that the kill comes well before the end
    run = make(f"killed-{workers}", workers=workers, steps=steps, checkpoint_every=20, max_failures=1)
    killer = threading.Thread(target=kill_a_worker, args=[Path(run.output), "step-00000020"])
    killer.start()
    told = fit(run)
    killer.join()
    began_at = metrics_of(run.output)[-1]["began_at_step"]
    assert 20 <= began_at < steps
    assert where_it_said(told) == [f"goes on from the checkpoint of step {began_at}"]
    whole = make(f"spared-{workers}", accumulation=workers, steps=steps, checkpoint_every=20)
    train_here(whole)
    assert_same(run, whole)
    assert sorted(losses_of(run.output)) == list(range(1, steps + 1))


def kill_a_worker(output: Path, checkpoint: str) -> None:
    wait_for_checkpoint(output, checkpoint)
    workers = [process for process in psutil.Process().children(recursive=True) if is_train_worker(process)]
    os.kill(workers[-1].pid, signal.SIGKILL)
    assert not (output / "model").exists()


def is_train_worker(process: psutil.Process) -> bool:
    try:
        return any("RayTrainWorker" in part for part in process.cmdline())
    except psutil.Error:
        return False


def wait_for_checkpoint(output: Path, name: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not (output / "checkpoints" / name / "state.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
