"""The render actor without a cluster: failures of one row stay with that row."""

import contextlib
import dataclasses
import json
import threading

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload

from actors.actor_config import ActorConfig
from actors.assets import RowAssets
from actors.device_errors import is_device_broken
from actors.records import Provenance
from actors.render_actor import RenderActor
from actors.renderer import Renderer, Saving
from actors.safety import SafetyVerdict
from actors.scorer import Scorer
from actors.storage import Storage
from schemas.planned import RESULT_SCHEMA, AssetRef, PlannedRow, units_table
from schemas.record import ErrorClass
from schemas.run import FetchLimits, InfrastructureError
from schemas.settings import RenderSettings
from schemas.speed import SpeedSettings


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


def test_a_unit_becomes_a_row_with_its_records(actor, rows):
    table = actor(units_table([(7, rows)]))
    assert table.schema.equals(RESULT_SCHEMA)
    [outcome] = table.to_pylist()
    assert outcome["unit_id"] == 7
    assert [record["status"] for record in outcome["records"]] == ["ok"] * 4


def test_a_safety_checker_s_verdict_is_in_the_record(actor, rows, monkeypatch):
    assert render(actor, rows[:1])["row-0"]["safety_flagged"] is None
    seen = []

    class Checker:
        def check(self, frames_THWC):
            seen.append(frames_THWC.shape)
            return SafetyVerdict(0.8, "nsfw", flagged=True)

    monkeypatch.setattr(actor, "_safety", Checker())
    record = render(actor, rows[1:2])["row-1"]
    assert (record["safety_score"], record["safety_label"], record["safety_flagged"]) == (0.8, "nsfw", True)
    assert record["status"] == "ok"
    assert seen == [(2, 32, 48, 3)]


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


def test_a_row_that_never_fits_fails_after_all_that_saves_memory(actor, rows, monkeypatch):
    savings = []

    def full_card(batch, references):
        savings.append(actor._renderer._saving)
        raise torch.OutOfMemoryError("nothing fits")

    monkeypatch.setattr(actor._renderer, "render", full_card)
    assert {record["error_class"] for record in render(actor, rows[:1]).values()} == {
        ErrorClass.OUT_OF_MEMORY
    }
    assert savings == list(Saving)
    assert actor._renderer._saving == Saving.NONE


@pytest.mark.parametrize("needed", list(Saving)[1:])
def test_a_row_that_does_not_fit_alone_is_tried_with_less_and_less(actor, rows, monkeypatch, needed):
    actor._batches._saving_of.clear()
    picture = actor._assets.style_image(rows[0].style_images[0])
    [plain] = actor._renderer.render(rows[:1], [RowAssets([picture])])
    render_batch, savings, frames, tiled = actor._renderer.render, [], [], []

    def small_card(batch, references):
        savings.append(actor._renderer._saving)
        if actor._renderer._saving < needed:
            raise RuntimeError("CUDA error: out of memory")
        tiled.append(actor._renderer.pipeline.vae.use_tiling)
        videos = render_batch(batch, references)
        frames.extend(video.frames_THWC for video in videos)
        return videos

    monkeypatch.setattr(actor._renderer, "render", small_card)
    assert {record["status"] for record in render(actor, rows[:2]).values()} == {"ok"}
    # Two together, then one by one; what was found out with the first is not tried again with the second.
    assert savings == [Saving.NONE, *list(Saving)[: needed + 1], needed]
    difference = np.abs(frames[0].astype(int) - plain.frames_THWC.astype(int))
    assert (difference <= 2).mean() >= 0.999
    assert tiled == [needed == Saving.TILED] * 2  # these frames are smaller than a tile


class ProcessEnded(BaseException):
    """Stands for the end of the process, which a test must survive."""


@pytest.fixture
def last_words(actor, output, monkeypatch):
    """Where the process would end, the markers that it leaves."""

    def end(code):
        found = [json.loads(path.read_text()) for path in output.rglob("attempts/**/*.json")]
        words.extend(sorted(found, key=lambda marker: marker["row_id"]))
        raise ProcessEnded

    words: list[dict] = []
    monkeypatch.setattr(actor, "_exit", end)
    return words


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("uncorrectable ECC error encountered"),
        RuntimeError("CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_device_that_broke_ends_the_process_once_the_rest_is_committed(
    actor, rows, output, monkeypatch, last_words, error
):
    render_batch = actor._renderer.render

    def breaks_at_the_second_batch(batch, references):
        if any(row.row_id == "row-2" for row in batch):
            raise error
        return render_batch(batch, references)

    monkeypatch.setattr(actor._renderer, "render", breaks_at_the_second_batch)
    monkeypatch.setattr(actor, "_config", dataclasses.replace(actor._config, batch_size=2))
    with pytest.raises(ProcessEnded):
        render(actor, rows)
    commits = [json.loads(path.read_text()) for path in output.rglob("commits/**/*.json")]
    assert {commit["row_id"] for commit in commits} == {"row-0", "row-1"}
    assert [marker["row_id"] for marker in last_words] == ["row-2", "row-3"]
    assert {marker["error_class"] for marker in last_words} == {ErrorClass.DEVICE_FAILED}
    assert str(error).splitlines()[0] in last_words[0]["error"]


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory. Tried to allocate"), RuntimeError("shapes do not match")]
)
def test_a_device_that_is_full_or_asked_for_nonsense_is_not_broken(error):
    assert not is_device_broken(error)


def test_a_render_that_hangs_ends_its_process_with_the_reason(actor, rows, monkeypatch, last_words):
    ended = threading.Event()
    exit_here = actor._exit

    def end(code):
        with contextlib.suppress(ProcessEnded):
            exit_here(code)
        ended.set()

    def hangs(batch, references):
        assert ended.wait(30)
        raise ProcessEnded

    monkeypatch.setattr(actor, "_exit", end)
    monkeypatch.setattr(actor._renderer, "render", hangs)
    monkeypatch.setattr(actor, "_config", dataclasses.replace(actor._config, render_timeout_s=0.01))
    with pytest.raises(ProcessEnded):
        render(actor, rows[:1])
    [marker] = last_words
    assert marker["error_class"] == ErrorClass.RENDER_TIMEOUT
    assert "more than the 0.01 s allowed" in marker["error"]


def test_markers_stand_while_rows_are_rendered_and_say_who_else_is(actor, rows, output, monkeypatch):
    render_batch, seen = actor._renderer.render, []

    def look(batch, references):
        seen.extend(json.loads(path.read_text()) for path in output.rglob("attempts/**/*.json"))
        return render_batch(batch, references)

    monkeypatch.setattr(actor._renderer, "render", look)
    monkeypatch.setattr(actor._attempts, "_begun", {rows[1].record_id: 2})
    records = render(actor, rows[:2])
    assert {marker["row_id"]: marker["attempt"] for marker in seen} == {"row-0": 1, "row-1": 3}
    assert all(set(marker["in_flight"]) == {row.record_id for row in rows[:2]} for marker in seen)
    assert {name: record["attempts"] for name, record in records.items()} == {"row-0": 1, "row-1": 3}
    assert not list(output.rglob("attempts/**/*.json"))


def test_a_row_that_a_dead_process_committed_is_not_made_again(actor, rows, monkeypatch):
    [first] = render(actor, rows[:1]).values()
    monkeypatch.setattr(actor, "_config", dataclasses.replace(actor._config, again=True))
    monkeypatch.setattr(actor._publisher, "find", None)
    assert render(actor, rows[:1])["row-0"]["finished_at"] == first["finished_at"]


def test_an_actor_that_cannot_load_says_so_with_its_first_unit(tmp_path, actor, rows):
    broken = RenderActor(dataclasses.replace(actor._config, model=str(tmp_path / "missing")))
    [outcome] = broken(units_table([(3, rows)])).to_pylist()
    assert outcome["unit_id"] == 3
    assert "missing is not a folder" in outcome["internal_error"]


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
    images = [RowAssets([actor._assets.style_image(asset) for asset in row.style_images]) for row in rows]
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


def test_tiling_that_was_on_stays_on_after_a_row_that_needed_it(actor):
    renderer = actor._renderer
    for was_tiling in (True, False):
        renderer.pipeline.vae.use_tiling = was_tiling
        for saving in Saving:
            with renderer.saving_memory(saving):
                assert renderer.pipeline.vae.use_tiling == (was_tiling or saving == Saving.TILED)
            assert renderer.pipeline.vae.use_tiling == was_tiling


def test_options_for_speed_reach_the_model(tiny_model):
    speed = SpeedSettings(vae_slicing=True, vae_tiling=True, attention_broadcast=(2, 4, 6), fp8_weights=True)
    pipeline = Renderer(tiny_model, dtype="float32", device="cpu", speed=speed).pipeline
    assert (pipeline.vae.use_slicing, pipeline.vae.use_tiling, pipeline.unet.is_cache_enabled) == (True,) * 3
    assert torch.float8_e4m3fn in {parameter.dtype for parameter in pipeline.unet.parameters()}


def test_offloaded_models_come_in_turn_and_pixels_are_the_same(actor, rows, tiny_model, monkeypatch):
    assets = [RowAssets([actor._assets.style_image(rows[0].style_images[0])])]
    [plain] = actor._renderer.render(rows[:1], assets)
    renderer = Renderer(tiny_model, dtype="float32", device="cpu", speed=SpeedSettings(cpu_offload=True))
    names = {id(model): name for name, model in renderer.pipeline.components.items()}
    brought = []
    bring = CpuOffload.pre_forward

    def noted(self, module, *args, **kwargs):
        if brought[-1:] != [names[id(module)]]:
            brought.append(names[id(module)])
        return bring(self, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", noted)
    [offloaded] = renderer.render(rows[:1], assets)
    assert brought == ["text_encoder", "image_encoder", "unet", "vae"]
    # Another copy of the weights lies elsewhere in memory, which may move the last bit.
    assert np.abs(plain.frames_THWC.astype(int) - offloaded.frames_THWC).max() <= 1
    brought.clear()
    renderer.render(rows[:1], assets)
    assert brought == ["unet", "vae"], "what is kept needs no encoder"
    Scorer(renderer.pipeline, "f" * 64).score(offloaded.frames_THWC, "a cat", assets[0].images)
    assert brought[2:] == ["image_encoder", "text_encoder"]


def test_without_offloading_a_render_that_runs_out_of_memory_sends_encoders_away(actor, rows, monkeypatch):
    renderer = actor._renderer
    moved = []
    monkeypatch.setattr(
        type(renderer.pipeline.text_encoder), "to", lambda self, place: moved.append(str(place))
    )
    assets = [RowAssets([actor._assets.style_image(rows[0].style_images[0])])]
    [plain] = renderer.render(rows[:1], assets)
    assert moved == []
    with renderer.saving_memory(Saving.ENCODERS_AWAY):
        [offloaded] = renderer.render(rows[:1], assets)
    assert moved == ["cpu", "cpu"]  # away, and back to this renderer's device
    assert np.array_equal(plain.frames_THWC, offloaded.frames_THWC)
