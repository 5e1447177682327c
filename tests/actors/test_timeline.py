"""The timeline of `--profile`: trace events as Perfetto reads them, and the overlap that they are looked at for."""

import dataclasses
import json
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from actors import publisher
from actors.actor_config import ActorConfig
from actors.records import Provenance
from actors.render_actor import RenderActor
from actors.storage import Storage
from schemas.planned import AssetRef, PlannedRow
from schemas.run import FetchLimits
from schemas.settings import RenderSettings

ROWS = 3


@pytest.fixture
def config(tiny_model, tmp_path):
    return ActorConfig(
        model=str(tiny_model),
        output=str(tmp_path / "out"),
        device="cpu",
        threads=1,
        batch_size=1,
        scores=True,
        limits=FetchLimits(),
        provenance=Provenance("run-7", "0.1", "f" * 64, False, "stylecrafter", "float32", 0),
        profile=True,
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
        for index in range(ROWS)
    ]


def spans_of(events, stage):
    return {
        event["args"]["row_ids"][0]: (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event["ph"] == "X" and event["name"] == stage
    }


def timeline_of(config):
    with open(*Path(config.output, "_profile").iterdir()) as file:
        return json.load(file)


def test_encoding_and_uploading_of_one_video_overlap_denoising_of_the_next(config, rows, monkeypatch):
    actor = RenderActor(config)
    second_denoised = threading.Event()
    render, encode = actor._renderer.render, publisher.encode_mp4

    def told(batch, references):
        videos = render(batch, references)
        if batch[0].row_id == "row-1":
            second_denoised.set()
        return videos

    def slow_for_the_first(frames, path, *settings):
        if path.stem == rows[0].row_key:
            assert second_denoised.wait(60), "denoising waits for encoding"
        encode(frames, path, *settings)

    monkeypatch.setattr(actor._renderer, "render", told)
    monkeypatch.setattr(publisher, "encode_mp4", slow_for_the_first)
    assert [record["status"] for record in actor.render_rows(rows)] == ["ok"] * len(rows)
    events = timeline_of(config)["traceEvents"]
    encoded, denoised = spans_of(events, "encode")["row-0"], spans_of(events, "denoise")["row-1"]
    assert encoded[0] < denoised[0] < denoised[1] < encoded[1]


def test_a_timeline_is_trace_events_with_each_rows_stages_in_order(config, rows):
    config = dataclasses.replace(config, batch_size=2)
    records = list(RenderActor(config).render_rows(rows))
    timeline = timeline_of(config)
    assert timeline.keys() == {"traceEvents", "displayTimeUnit"}
    events = timeline["traceEvents"]
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    for span in spans:
        assert span.keys() == {"name", "ph", "ts", "dur", "pid", "tid", "args"}
        assert span["ts"] >= 0 and span["dur"] > 0 and span["tid"] in lanes
    assert {lanes[span["tid"]].split("_")[0] for span in spans} == {"fetch", "device", "publish"}
    # What is on one lane follows each other.
    for lane in lanes:
        on_lane = sorted((s["ts"], s["ts"] + s["dur"]) for s in spans if s["tid"] == lane)
        assert all(a[1] <= b[0] + 1 for a, b in pairwise(on_lane))
    for record in records:
        own = [span for span in spans if record["row_id"] in span["args"]["row_ids"]]
        stages = ["fetch", "condition", "denoise", "decode", "score", "encode", "upload"]
        assert [span["name"] for span in sorted(own, key=lambda span: span["ts"])] == stages
        for span in own:
            share_s = span["dur"] / len(span["args"]["row_ids"]) / 1e6
            assert share_s == pytest.approx(record["timings"][f"{span['name']}_s"])


def test_without_the_flag_nothing_is_written(config, rows, tmp_path):
    list(RenderActor(dataclasses.replace(config, profile=False)).render_rows(rows[:1]))
    assert not (tmp_path / "out" / "_profile").exists()
