"""The render actor without a cluster: failures of one row stay with that row."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from actors.actor_config import ActorConfig
from actors.records import Provenance
from actors.render_actor import RenderActor
from actors.storage import Storage
from schemas.planned import AssetRef, PlannedRow, units_table
from schemas.record import RECORD_SCHEMA, ErrorClass
from schemas.run import FetchLimits, InfrastructureError
from schemas.settings import RenderSettings


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def actor(tiny_model, output):
    provenance = Provenance("run", "0.1", "f" * 64, False, "stylecrafter", "float32", 0)
    return RenderActor(
        ActorConfig(
            model=str(tiny_model),
            output=str(output),
            device="cpu",
            threads=1,
            batch_size=4,
            scores=True,
            limits=FetchLimits(),
            provenance=provenance,
        )
    )


@pytest.fixture
def rows(pictures):
    stat = Storage().stat(str(pictures / "0.png"))
    picture = AssetRef(uri="0.png", location=stat.uri, version=stat.version, size_bytes=stat.size_bytes)
    settings = RenderSettings(num_frames=2, height=32, width=48, num_inference_steps=2)
    return [
        PlannedRow(
            row_id=f"row-{index}",
            sample_index=0,
            row_key=f"{index:032x}",
            prompt=f"prompt {index}",
            style_images=[picture],
            seed=index,
            settings=settings,
        )
        for index in range(4)
    ]


def render(actor, rows):
    return {record["row_id"]: record for record in actor.render_rows(rows)}


def test_a_unit_becomes_a_table_of_records(actor, rows):
    table = actor(units_table([(0, rows)]))
    assert table.schema.equals(RECORD_SCHEMA)
    assert table["status"].to_pylist() == ["ok"] * 4


def test_a_row_that_breaks_its_batch_fails_alone(actor, rows, output, monkeypatch):
    render_batch = actor._renderer.render

    def poisoned(batch, references):
        if any(row.row_id == "row-2" for row in batch):
            raise RuntimeError("a kernel did not like this row")
        return render_batch(batch, references)

    monkeypatch.setattr(actor._renderer, "render", poisoned)
    records = render(actor, rows)
    assert [records[f"row-{i}"]["status"] for i in range(4)] == ["ok", "ok", "failed", "ok"]
    assert records["row-2"]["error_class"] == ErrorClass.RENDER_FAILED
    assert "did not like" in records["row-2"]["error"]
    commits = [json.loads(path.read_text()) for path in output.rglob("commits/**/*.json")]
    assert {commit["row_id"] for commit in commits} == {row.row_id for row in rows}


def test_out_of_memory_halves_the_batch(actor, rows, monkeypatch):
    render_batch, sizes = actor._renderer.render, []

    def small_card(batch, references):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("4 videos do not fit")
        return render_batch(batch, references)

    monkeypatch.setattr(actor._renderer, "render", small_card)
    assert {record["status"] for record in render(actor, rows).values()} == {"ok"}
    assert sizes == [4, 2, 2]


def test_out_of_memory_with_one_row_fails_that_row(actor, rows, monkeypatch):
    def full_card(batch, references):
        raise torch.OutOfMemoryError("nothing fits")

    monkeypatch.setattr(actor._renderer, "render", full_card)
    assert {record["error_class"] for record in render(actor, rows).values()} == {ErrorClass.OUT_OF_MEMORY}


def test_latents_that_are_not_finite_fail_their_row_alone(actor, rows, monkeypatch):
    denoise = actor._renderer.pipeline.denoise

    def broken(*arguments, **settings):
        latents = denoise(*arguments, **settings)
        latents[1] = float("nan")
        return latents

    monkeypatch.setattr(actor._renderer.pipeline, "denoise", broken)
    records = render(actor, rows)
    assert [records[f"row-{i}"]["status"] for i in range(4)] == ["ok", "failed", "ok", "ok"]
    assert records["row-1"]["error_class"] == ErrorClass.NON_FINITE


def test_a_picture_that_changed_since_the_plan_fails_its_row(actor, rows):
    stale = rows[0].style_images[0].model_copy(update={"version": "another"})
    records = render(actor, [rows[0].model_copy(update={"style_images": [stale]}), rows[1]])
    assert records["row-0"]["error_class"] == ErrorClass.ASSET_CHANGED
    assert records["row-1"]["status"] == "ok"


def test_a_store_that_does_not_take_the_video_ends_the_run(actor, rows, monkeypatch):
    def down(*_, **__):
        raise InfrastructureError("the object store does not answer")

    monkeypatch.setattr(actor._publisher, "publish", down)
    with pytest.raises(InfrastructureError, match="does not answer"):
        render(actor, rows)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_row_renders_the_same_frames_in_any_batch_and_with_any_threads(actor, rows, two_threads):
    images = [[actor._assets.style_image(asset) for asset in row.style_images] for row in rows]
    alone = [actor._renderer.render([row], [image])[0] for row, image in zip(rows, images, strict=True)]
    torch.set_num_threads(1)
    for one, in_batch in zip(alone, actor._renderer.render(rows, images), strict=True):
        difference = np.abs(one.frames_THWC.astype(int) - in_batch.frames_THWC.astype(int))
        assert (difference <= 2).mean() >= 0.999


def test_what_is_rendered_is_committed_even_when_a_later_fetch_ends_the_run(actor, rows, output, monkeypatch):
    style_image = actor._assets.style_image
    monkeypatch.setattr(actor, "_config", dataclasses.replace(actor._config, batch_size=1))
    calls = []

    def store_goes_down(asset):
        calls.append(asset)
        if len(calls) > 2:
            raise InfrastructureError("the object store does not answer")
        return style_image(asset)

    monkeypatch.setattr(actor._assets, "style_image", store_goes_down)
    with pytest.raises(InfrastructureError):
        render(actor, rows)
    assert len(list(output.rglob("commits/**/*.json"))) == 2
