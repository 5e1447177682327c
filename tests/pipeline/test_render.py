"""The render flow end to end on one machine: a manifest in; videos, scores and records out."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moviepy import VideoFileClip

from benchmarks.runs import coded_frames
from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import manifest_schema
from schemas.record import RECORD_SCHEMA
from schemas.run import ExitCode, RenderRun


def write_manifest(path: Path, rows: list[dict]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.Table.from_pylist(rows, schema=manifest_schema(columns)), path)
    return str(path)


@pytest.fixture
def rows(pictures):
    return [
        {"prompt": "a cat", "style_image_uri": [f"{pictures}/0.png"]},
        {"prompt": "a dog", "style_image_uri": [f"{pictures}/1.png", f"{pictures}/2.png"]},
        {"prompt": "a house", "style_image_uri": [f"{pictures}/2.png"]},
    ]


@pytest.fixture
def run_rows(tmp_path, tiny_model):
    """Renders rows into one output, as often as called; returns the summary."""

    def run(rows, output="out", **config):
        manifest = write_manifest(tmp_path / "manifest.parquet", rows)
        return render(
            prepare(
                RenderRun(manifest=manifest, model=str(tiny_model), output=str(tmp_path / output), **config)
            )
        )

    return run


def records_of(output: Path) -> list[dict]:
    table = pq.read_table(output / "records")
    assert table.schema.remove_metadata().equals(RECORD_SCHEMA)
    return table.to_pylist()


def videos_of(output: Path) -> list[Path]:
    return sorted((output / "videos").rglob("*.mp4"))


def frames_of(path: Path) -> np.ndarray:
    with VideoFileClip(str(path), audio=False) as clip:
        return np.stack(list(clip.iter_frames()))


@pytest.mark.usefixtures("in_process")
def test_a_manifest_becomes_videos_scores_and_records(tmp_path, rows, run_rows):
    summary = run_rows(rows)
    output = tmp_path / "out"
    assert summary.statuses == {"ok": 3}
    assert summary.exit_code(0.0) == ExitCode.DONE
    records = records_of(output)
    assert [record["prompt"] for record in records] == ["a cat", "a dog", "a house"]
    for record in records:
        video = Path(record["video_uri"])
        assert video.is_relative_to(output / "videos")
        assert video.name == f"{record['row_key']}.mp4"
        assert frames_of(video).shape == (4, 32, 48, 3)
        assert record["size_bytes"] == video.stat().st_size
        assert record["model_trained"] is False
        assert all(-1 <= record[name] <= 1 for name in ("clip_text", "clip_style", "clip_temp"))
        assert len(record["fusion_scales"]) > 0
        assert record["timings"]["denoise_s"] > 0
        commit = output / "commits" / record["record_id"][:2] / f"{record['record_id']}.json"
        assert json.loads(commit.read_text())["row_id"] == record["row_id"]
    assert json.loads((output / "run" / "summary.json").read_text())["records"] == 3


@pytest.mark.usefixtures("in_process")
def test_running_again_renders_nothing_and_a_changed_prompt_renders_one(tmp_path, rows, run_rows):
    run_rows(rows)
    before = {path: path.stat().st_mtime_ns for path in videos_of(tmp_path / "out")}
    again = run_rows(rows)
    assert (again.rendered, again.reused, again.statuses) == (0, 3, {"ok": 3})
    rows[1]["prompt"] = "a horse"
    changed = run_rows(rows)
    assert (changed.rendered, changed.reused) == (1, 2)
    after = {path: path.stat().st_mtime_ns for path in videos_of(tmp_path / "out")}
    assert before.items() < after.items()
    assert len(records_of(tmp_path / "out")) == 3


@pytest.mark.usefixtures("in_process")
def test_an_optional_column_at_its_default_renders_nothing(rows, run_rows):
    run_rows(rows)
    again = run_rows(
        [{**row, "num_inference_steps": 2, "style_scale": 1.0, "meta_source": "x"} for row in rows]
    )
    assert again.rendered == 0


@pytest.mark.usefixtures("in_process")
def test_a_duplicated_row_gives_two_records_and_one_video(tmp_path, rows, run_rows):
    summary = run_rows([*rows, rows[0]])
    records = records_of(tmp_path / "out")
    assert summary.statuses == {"ok": 4}
    assert len({record["record_id"] for record in records}) == 4
    assert len(videos_of(tmp_path / "out")) == 3
    assert records[0]["video_uri"] == records[3]["video_uri"]
    later = run_rows([*rows, rows[0], {**rows[0], "row_id": "third"}])
    assert (later.rendered, later.statuses) == (0, {"ok": 5})


@pytest.mark.usefixtures("in_process")
def test_bad_rows_become_records_and_the_others_are_rendered(tmp_path, rows, pictures, run_rows):
    bad = [
        {"prompt": "no picture", "style_image_uri": [f"{pictures}/missing.png"]},
        {"prompt": "an SVG", "style_image_uri": [f"{pictures}/broken.png"]},
        {"prompt": " ", "style_image_uri": [f"{pictures}/0.png"]},
        {"prompt": "scheme", "style_image_uri": ["ftp://host/a.png"]},
    ]
    summary = run_rows([*rows, *bad])
    assert summary.statuses == {"ok": 3, "failed": 2, "invalid": 2}
    assert summary.error_classes == {
        "asset_not_found": 1,
        "asset_undecodable": 1,
        "invalid_row": 1,
        "uri_forbidden": 1,
    }
    assert summary.exit_code(0.0) == ExitCode.DONE_WITH_FAILED_ROWS
    assert summary.exit_code(0.9) == ExitCode.DONE
    assert all(record["error"] for record in records_of(tmp_path / "out")[3:])
    assert run_rows([*rows, *bad]).rendered == 0


@pytest.mark.usefixtures("local_ray")
def test_batches_and_actors_change_neither_names_nor_frames(tmp_path, rows, run_rows):
    more = [{**row, "prompt": f"{row['prompt']} at night"} for row in rows]
    run_rows([*rows, *more], "alone")
    run_rows([*rows, *more], "together", batch_size=3, actors=2, unit_rows=3)
    alone, together = records_of(tmp_path / "alone"), records_of(tmp_path / "together")
    for name in ("row_key", "seed", "record_id"):
        assert [record[name] for record in alone] == [record[name] for record in together]
    for one, other in zip(alone, together, strict=True):
        # The codec turns differences of one level into some more; tests of the renderer compare what it is given.
        difference = frames_of(Path(one["video_uri"])).astype(int) - frames_of(
            Path(other["video_uri"])
        ).astype(int)
        assert np.abs(difference).mean() < 1


@pytest.mark.usefixtures("in_process")
def test_a_published_video_without_its_commit_is_adopted(tmp_path, rows, run_rows):
    run_rows(rows[:1])
    [video] = videos_of(tmp_path / "out")
    written = video.stat().st_mtime_ns
    [commit] = (tmp_path / "out" / "commits").rglob("*.json")
    first = json.loads(commit.read_text())
    commit.unlink()
    run_rows(rows[:1])
    assert video.stat().st_mtime_ns == written
    adopted = json.loads(commit.read_text())
    assert adopted["sha256"] == first["sha256"]
    assert adopted["clip_style"] == pytest.approx(first["clip_style"], abs=0.05)


@pytest.mark.usefixtures("in_process")
def test_a_truncated_video_without_its_commit_is_rendered_again(tmp_path, rows, run_rows):
    run_rows(rows[:1])
    [video] = videos_of(tmp_path / "out")
    whole, frames = video.read_bytes(), coded_frames(video)  # its metadata name the run that made it
    [commit] = (tmp_path / "out" / "commits").rglob("*.json")
    commit.unlink()
    video.write_bytes(whole[: len(whole) // 2])
    run_rows(rows[:1])
    assert coded_frames(video) == frames


@pytest.mark.usefixtures("in_process")
def test_samples_and_per_row_settings(tmp_path, rows, run_rows):
    summary = run_rows([{**rows[0], "num_samples": 2, "num_frames": 2, "fps": 5, "meta_tag": "x"}])
    records = records_of(tmp_path / "out")
    assert summary.statuses == {"ok": 2}
    assert {record["sample_index"] for record in records} == {0, 1}
    assert len(videos_of(tmp_path / "out")) == 2
    assert json.loads(records[0]["meta"]) == {"meta_tag": "x"}
    assert records[0]["duration_s"] == pytest.approx(0.4)


@pytest.mark.usefixtures("in_process")
def test_an_empty_manifest_is_done_and_readable(tmp_path, tiny_model, monkeypatch):
    empty = pa.table(
        {"prompt": [], "style_image_uri": []}, schema=manifest_schema(["prompt", "style_image_uri"])
    )
    pq.write_table(empty, tmp_path / "empty.parquet")
    monkeypatch.chdir(tmp_path)
    summary = render(prepare(RenderRun(manifest="empty.parquet", model=str(tiny_model), output="out")))
    assert summary.exit_code(0.0) == ExitCode.DONE
    assert records_of(tmp_path / "out") == []
