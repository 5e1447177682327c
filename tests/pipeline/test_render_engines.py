"""The same rows by two engines: paired records, and what an engine lacks is a row's own error."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.prepare import prepare
from pipeline.render import render
from schemas.manifest import manifest_schema
from schemas.run import RenderRun, UsageError
from tests.support.animatediff import assemble_parts, write_parts


@pytest.fixture(scope="module")
def animatediff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("animatediff")
    write_parts(root / "parts")
    assemble_parts(root / "parts", root / "model")
    path = root / "model" / "generation_config.json"
    small = {"height": 32, "width": 48, "num_frames": 4, "num_inference_steps": 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | small))
    return root / "model"


def rows(pictures: Path) -> list[dict[str, Any]]:
    one, two = [f"{pictures}/0.png"], [f"{pictures}/0.png", f"{pictures}/1.png"]
    return [
        {"row_id": "one", "style_image_uri": one},
        {"row_id": "weak", "style_image_uri": one, "style_scale": 0.5},
        {"row_id": "weighted", "style_image_uri": two, "style_weights": [2.0, 1.0]},
        {"row_id": "mixed", "style_image_uri": two, "style_mix": 0.5},
        {"row_id": "image", "style_image_uri": one, "mode": "image"},
        {"row_id": "texture", "style_image_uri": one, "style_scale_texture": 0.5},
        {"row_id": "long", "style_image_uri": one, "num_frames": 40},
        {"row_id": "depth", "style_image_uri": one, "depth_video_uri": f"{pictures}/none.mp4"},
    ]


def records_of(model: Path, pictures: Path, folder: Path, **config: Any) -> dict[str, dict[str, Any]]:
    complete = [{"prompt": "a cat"} | row for row in rows(pictures)]
    schema = manifest_schema(list(dict.fromkeys(name for row in complete for name in row)))
    pq.write_table(pa.Table.from_pylist(complete, schema=schema), folder / "manifest.parquet")
    output = folder / model.parent.name
    given = {"manifest": str(folder / "manifest.parquet"), "model": str(model), "output": str(output)}
    render(prepare(RenderRun(**given, **config)))
    return {record["row_id"]: record for record in pq.read_table(output / "records").to_pylist()}


@pytest.mark.usefixtures("in_process")
def test_one_manifest_by_two_engines(
    animatediff: Path, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    ours = records_of(tiny_model, pictures, tmp_path)
    theirs = records_of(animatediff, pictures, tmp_path)
    assert {record["engine"] for record in theirs.values()} == {"animatediff_ip_adapter"}
    for row_id in ("one", "weak", "weighted", "mixed"):
        assert theirs[row_id]["status"] == ours[row_id]["status"] == "ok", theirs[row_id]["error"]
        assert theirs[row_id]["seed"] == ours[row_id]["seed"]
        assert theirs[row_id]["row_key"] != ours[row_id]["row_key"]
        # Its text tower is no half of its image tower's CLIP, and it has no fusion scales.
        assert theirs[row_id]["clip_text"] is None
        assert theirs[row_id]["fusion_scales"] is None
        assert -1 <= theirs[row_id]["clip_style"] <= 1
    for row_id, told in (
        ("image", "renders videos only"),
        ("texture", "no groups of layers"),
        ("long", "num_frames = 40: this model has at most 32"),
        ("depth", "no depth adapter"),
    ):
        assert theirs[row_id]["status"] == "invalid"
        assert told in theirs[row_id]["error"]


def test_what_an_engine_cannot_speed_up_is_refused_before_the_run(
    animatediff: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"speed.attention_broadcast .* engine 'animatediff_ip_adapter'"):
        records_of(animatediff, pictures, tmp_path, speed={"attention_broadcast": (2, 4, 6)})
