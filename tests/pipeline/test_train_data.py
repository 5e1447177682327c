"""The stream of micro-batches through Ray Data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.util.state

from actors.micro_batch import MicroBatch
from pipeline import train_data
from pipeline.train_data import stream, summarise_data
from schemas.data_plan import DataPlan
from schemas.manifest import ManifestError
from schemas.run import UsageError
from tests.support.training_data import write_manifest, write_picture, write_world

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> DataPlan:
    world = write_world(tmp_path_factory.mktemp("world"))
    return DataPlan(
        manifests=(world,),
        height=16,
        width=16,
        num_frames=4,
        image_batch=2,
        video_batch=2,
        image_share=0.4,
        reference_pixels={"size": 8, "reference_size": 16},
        block_size=3,
    )


@pytest.fixture(scope="module")
def whole(plan: DataPlan, local_ray: None) -> list[MicroBatch]:
    """The uninterrupted stream of one worker."""
    return list(stream(plan, rank=0, world_size=1, start=0, stop=20))


def same(left: list[MicroBatch], right: list[MicroBatch]) -> bool:
    def values(batch: MicroBatch) -> tuple:
        arrays = (batch.positions_B, batch.target_BTHWC, batch.reference_B3HW)
        return (
            batch.index,
            batch.kind,
            batch.captions,
            batch.problems,
            *(None if array is None else array.tobytes() for array in arrays),
        )

    return [values(batch) for batch in left] == [values(batch) for batch in right]


def test_in_order_and_as_made_without_ray(plan: DataPlan, whole: list[MicroBatch]) -> None:
    assert [batch.index for batch in whole] == list(range(20))
    samples = train_data.TrainingSamples(plan)
    assert same(whole, [samples.micro_batch(index) for index in range(20)])
    samples.close()
    images = [batch for batch in whole if batch.kind == "image"]
    assert len(images) == 8
    assert np.concatenate([batch.positions_B for batch in images]).tolist() == list(range(16))


def test_a_resumed_stream_is_the_tail(plan: DataPlan, whole: list[MicroBatch]) -> None:
    assert same(list(stream(plan, rank=0, world_size=1, start=13, stop=20)), whole[13:])


def test_two_workers_share_what_one_has(
    plan: DataPlan, whole: list[MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_data, "_BLOCKS_PER_DATASET", 2)  # so that one dataset follows another
    other = plan.model_copy(update={"readers": 2})
    for rank in range(2):
        found = list(stream(other, rank=rank, world_size=2, start=3, stop=20))
        assert same(found, [batch for batch in whole[3:] if batch.index % 2 == rank])


def test_nothing_to_do(plan: DataPlan) -> None:
    assert list(stream(plan, rank=1, world_size=4, start=2, stop=5)) == []
    with pytest.raises(ValueError, match="rank = 2"):
        stream(plan, rank=2, world_size=2, start=0, stop=1)


def test_an_early_stop_ends_the_readers(plan: DataPlan, until: Callable) -> None:
    before = ray.cluster_resources()["CPU"]
    batches = stream(plan, rank=0, world_size=1, start=0, stop=10_000)
    assert next(batches).index == 0
    batches.close()
    until(lambda: ray.available_resources().get("CPU") == before)


@pytest.fixture
def until() -> Callable:
    import time

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline

    return wait


def test_too_few_cpus_are_told_and_not_waited_for(plan: DataPlan) -> None:
    greedy = plan.model_copy(update={"readers": 2, "cpus_per_reader": 0.75})
    with pytest.raises(
        UsageError, match=r"readers = 2: with 0.75 CPUs each they need 1.5 CPUs beside each of 2"
    ):
        next(stream(greedy, rank=0, world_size=2, start=0, stop=4))


def test_cpus_that_the_trainer_holds(plan: DataPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_data, "_FREE_CPUS_TIMEOUT_S", 0)
    actor = ray.remote(num_cpus=2)(_Holder).remote()
    ray.get(actor.ready.remote())
    try:
        with pytest.raises(UsageError, match="give fewer CPUs to a training worker"):
            next(stream(plan, rank=0, world_size=1, start=0, stop=4))
    finally:
        ray.kill(actor)


class _Holder:
    def ready(self) -> None:
        return None


def test_failures_keep_their_names(plan: DataPlan, tmp_path: Path) -> None:
    rows = [{"uri": f"{index}.png", "caption": "x"} for index in range(40)]
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    unreadable = plan.model_copy(update={"manifests": (manifest,), "image_share": 1.0})
    with pytest.raises(UsageError, match="none of 32 rows in a row can be read"):
        next(stream(unreadable, rank=0, world_size=1, start=0, stop=4))
    missing = plan.model_copy(update={"manifests": (str(tmp_path / "none.parquet"),)})
    with pytest.raises(ManifestError, match=r"none\.parquet"):
        next(stream(missing, rank=0, world_size=1, start=0, stop=4))


def test_summary(plan: DataPlan, tmp_path: Path) -> None:
    found = summarise_data(plan)
    assert (found.rows, found.styles, found.all_videos_styled) == ({"image": 5, "video": 3}, 2, False)
    write_picture(tmp_path / "0.png", 0)
    rows = [{"uri": "0.png", "caption": "x"}, {"uri": "0.png", "caption": None}]
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    images = plan.model_copy(update={"manifests": (manifest,), "image_share": 1.0})
    assert summarise_data(images).skipped == {"caption is missing": 1}
    with pytest.raises(UsageError, match="needs videos"):
        summarise_data(images.model_copy(update={"image_share": 0.5}))
