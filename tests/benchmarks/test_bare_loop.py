"""The bare loop does the pipeline's work: same manifest, same bytes, same scores."""

import json
import sys
from pathlib import Path

import pytest

from actors.records import Provenance
from actors.render_actor import ActorConfig, RenderActor
from actors.storage import Storage
from benchmarks import bare_loop
from benchmarks.runs import coded_frames
from benchmarks.workload import write_manifest, write_styles
from examples.untrained_model import build_untrained_pipeline
from schemas.planned import AssetRef, PlannedRow
from schemas.run import FetchLimits


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipeline = build_untrained_pipeline(seed=1, channels=(32, 64), layers_per_block=1)
    pipeline.generation_config |= {"height": 32, "width": 48, "num_frames": 4}
    directory = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(directory)
    return directory


def planned(row: bare_loop.BareRow) -> PlannedRow:
    stats = [Storage().stat(style) for style in row.styles]
    return PlannedRow(
        row_id=row.row_id,
        sample_index=0,
        row_key=row.row_id.replace("-", ""),
        prompt=row.prompt,
        style_images=[
            AssetRef(uri=stat.uri, location=stat.uri, version=stat.version, size_bytes=stat.size_bytes)
            for stat in stats
        ],
        seed=row.seed,
        settings=row.settings,
    )


def render_with_actor(rows: list[bare_loop.BareRow], model: Path, output: Path) -> dict[str, dict]:
    provenance = Provenance("run", "0", "f" * 64, False, "stylecrafter", "float32", 0)
    config = ActorConfig(str(model), str(output), "cpu", 1, 2, True, FetchLimits(), provenance)
    actor = RenderActor(config)
    return {record["row_id"]: record for record in actor.render_rows([planned(row) for row in rows])}


def test_the_bare_loop_makes_the_same_videos_and_scores(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, output = tmp_path / "manifest.parquet", tmp_path / "bare"
    write_manifest(manifest, write_styles(tmp_path / "styles", 2), num_inference_steps=2)
    arguments = (
        f"bare_loop --manifest {manifest} --model {model} --output {output} --threads 1 --batch-size 2"
    )
    monkeypatch.setattr(sys, "argv", arguments.split())
    bare_loop.main()
    found = [json.loads(line) for line in (output / "rows-0.jsonl").read_text().splitlines()]
    rows = bare_loop.read_rows(manifest, model)
    assert [row["row_id"] for row in found] == [row.row_id for row in rows]

    records = render_with_actor(rows, model, tmp_path / "actor")
    for row in found:
        record = records[row["row_id"]]
        assert record["status"] == "ok"
        assert coded_frames(Path(row["video"])) == coded_frames(Path(record["video_uri"]))
        for name in ("clip_text", "clip_style", "clip_temp"):
            assert row[name] == pytest.approx(record[name], abs=1e-5)
        assert set(row["timings"]) <= set(record["timings"])
    assert found[0]["clip_style"] != found[1]["clip_style"]


def test_loops_side_by_side_share_the_rows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "manifest.parquet"
    write_manifest(manifest, write_styles(tmp_path / "styles", 2), num_inference_steps=1)
    arguments = f"bare_loop --manifest {manifest} --model {model} --output {tmp_path} --threads 1"
    monkeypatch.setattr(sys, "argv", f"{arguments} --shard 1 --shards 2".split())
    bare_loop.main()
    [line] = (tmp_path / "rows-1.jsonl").read_text().splitlines()
    assert json.loads(line)["row_id"] == "row-001"
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["row-001.mp4"]
