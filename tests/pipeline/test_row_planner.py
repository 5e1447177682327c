"""From manifest row to planned videos: names that hold still, and refusals that become records."""

import pytest

from actors.records import Provenance
from actors.storage import ObjectStat
from pipeline.manifest_reader import RawRow
from pipeline.model_info import ModelInfo
from pipeline.row_planner import RowPlanner
from schemas.planned import PlannedRow
from schemas.record import RECORD_SCHEMA, ErrorClass, RowError, Status
from schemas.run import RenderRun

MODEL = ModelInfo(
    uri="model",
    fingerprint="f" * 64,
    engine="stylecrafter",
    trained=True,
    defaults={"num_frames": 8, "height": 128, "width": 192, "num_inference_steps": 10},
    pixel_multiple=64,
    unet_channels=320,
)
PROVENANCE = Provenance("run", "0.1", MODEL.fingerprint, True, "stylecrafter", "float32", 0)


class Assets:
    """Stands for the object store: every picture exists, but for those named 'missing'."""

    def __init__(self, version: str = "v1"):
        self.version = version
        self.probed: list[str] = []

    def probe(self, location: str) -> ObjectStat:
        self.probed.append(location)
        if "missing" in location:
            raise RowError(ErrorClass.ASSET_NOT_FOUND, f"{location}: not found")
        return ObjectStat(location, 10, self.version)


def row(**values):
    return {"prompt": "a cat", "style_image_uri": ["s3://styles/a.png"], **values}


def plan(*rows, assets=None, **run):
    config = RenderRun(manifest="m", model="model", output="o", **run)
    planner = RowPlanner(config, MODEL, assets or Assets(), PROVENANCE)
    return list(planner.plan([RawRow(values, "s3://manifests/m.parquet") for values in rows]))


def test_values_come_from_row_then_run_then_model():
    [planned] = plan(row(num_frames=4), width=256)
    settings = planned.settings
    assert (settings.num_frames, settings.width, settings.height) == (4, 256, 128)
    assert settings.text_guidance_scale == 15.0


def test_each_sample_is_a_video_of_its_own():
    first, second = plan(row(num_samples=2))
    assert first.row_id == second.row_id
    assert len({first.row_key, second.row_key}) == len({first.seed, second.seed}) == 2
    assert first.record_id != second.record_id


def test_seed_ignores_settings_model_and_row_id_so_that_sweeps_are_paired():
    seeds = {
        planned.seed
        for values in (
            row(),
            row(num_frames=4),
            row(style_scale=0.5),
            row(row_id="x"),
            row(num_inference_steps=3),
        )
        for planned in plan(values)
    }
    assert len(seeds) == 1
    assert plan(row(), seed=1)[0].seed not in seeds
    assert plan(row(prompt="a dog"))[0].seed not in seeds


@pytest.mark.parametrize(
    "column", [{"num_frames": None}, {"style_scale": 1.0}, {"negative_prompt": ""}, {"num_samples": 1},
               {"priority": 0}, {"depth_video_uri": None}, {"mode": "video"}, {"fps": 10}, {"meta_source": "web"}]
)  # fmt: skip
def test_a_column_at_its_default_changes_no_name(column):
    [before], [after] = plan(row()), plan(row(**column))
    assert (before.row_id, before.row_key, before.record_id) == (after.row_id, after.row_key, after.record_id)


def test_a_column_at_the_model_s_default_asks_for_the_same_video():
    [before], [after] = plan(row()), plan(row(num_inference_steps=10))
    assert before.row_key == after.row_key


def test_a_row_keeps_its_id_under_any_run_and_model():
    [before], [after] = plan(row(num_frames=8)), plan(row(num_frames=8), num_frames=4, width=256)
    assert before.row_id == after.row_id


def test_two_unicode_forms_of_an_id_are_one():
    first, second = plan(row(row_id="\u00e9"), row(row_id="e\u0301"))
    assert (first.row_id, second.row_id) == ("\u00e9", "\u00e9~2")


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a dog"}, {"num_inference_steps": 11}, {"style_scale": 0.5}, {"seed": 3}, {"fps": 12},
     {"style_image_uri": ["s3://styles/a.png", "s3://styles/b.png"]}, {"negative_prompt": "blurry"}],
)  # fmt: skip
def test_a_change_of_content_changes_the_names(change):
    [before], [after] = plan(row()), plan(row(**change))
    assert before.row_key != after.row_key
    assert before.row_id != after.row_id


def test_another_version_of_the_picture_is_another_video_of_the_same_row():
    [before], [after] = plan(row()), plan(row(), assets=Assets("v2"))
    assert before.row_id == after.row_id
    assert before.row_key != after.row_key


def test_repeated_rows_get_ids_of_their_own_and_share_the_video():
    planned = plan(row(), row(), row(row_id="a"), row(row_id="a"))
    assert len({p.record_id for p in planned}) == 4
    assert len({p.row_key for p in planned}) == 1
    assert [p.row_id for p in planned[2:]] == ["a", "a~2"]


def test_an_id_that_looks_like_a_repeated_one_stays_unique():
    ids = [p.row_id for p in plan(row(row_id="a"), row(row_id="a"), row(row_id="a~2"), row(row_id="a"))]
    assert len(set(ids)) == 4


def test_one_id_for_two_contents_is_refused():
    first, second = plan(row(row_id="a"), row(row_id="a", prompt="a dog"))
    assert isinstance(first, PlannedRow)
    assert second["status"] == Status.INVALID
    assert second["error_class"] == ErrorClass.DUPLICATE_ROW_ID
    assert second["row_id"] != first.row_id


@pytest.mark.parametrize(
    ("values", "error_class", "said"),
    [
        ({"width": 100}, ErrorClass.INVALID_ROW, "width = 100: must be a multiple of 64"),
        ({"num_frames": -1}, ErrorClass.INVALID_ROW, "num_frames = -1"),
        ({"prompt": None}, ErrorClass.INVALID_ROW, "prompt: is missing"),
        ({"depth_video_uri": "s3://d.mp4"}, ErrorClass.DEPTH_UNSUPPORTED, "no depth adapter"),
        ({"mode": "image"}, ErrorClass.MODE_UNSUPPORTED, "mode = 'image'"),
    ],
)
def test_a_row_that_cannot_be_rendered_becomes_a_complete_record(values, error_class, said):
    [record] = plan(row(row_id="bad", **values))
    assert record["status"] == Status.INVALID
    assert record["error_class"] == error_class
    assert said in record["error"]
    assert record["row_id"] == "bad"
    assert set(record) == set(RECORD_SCHEMA.names)


def test_a_missing_picture_fails_its_row_and_its_return_makes_a_new_video():
    [record] = plan(row(style_image_uri=["s3://styles/missing.png"]))
    assert (record["status"], record["error_class"]) == (Status.FAILED, ErrorClass.ASSET_NOT_FOUND)
    assert record["row_key"] is not None
    [there] = plan(row())
    assert there.row_key != record["row_key"]


def test_each_picture_is_looked_at_once():
    assets = Assets()
    plan(row(), row(prompt="b"), row(style_image_uri="s3://styles/a.png"), assets=assets)
    assert assets.probed == ["s3://styles/a.png"]


def test_a_relative_picture_is_relative_to_the_manifest_but_named_as_written():
    [planned] = plan(row(style_image_uri=["styles/a.png"]))
    assert planned.style_images[0].uri == "styles/a.png"
    assert planned.style_images[0].location == "s3://manifests/styles/a.png"
