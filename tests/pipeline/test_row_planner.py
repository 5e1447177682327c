"""From manifest row to planned videos: names that hold still, and refusals that become records."""

from dataclasses import replace

import pytest

from actors.records import Provenance
from actors.storage import ObjectStat
from pipeline.manifest_reader import RawRow
from pipeline.model_info import ModelInfo
from pipeline.row_planner import RowPlanner
from schemas.planned import PlannedRow
from schemas.record import RECORD_SCHEMA, ErrorClass, RowError, Status
from schemas.run import RenderRun, UsageError

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

    probe_depth = probe


def row(**values):
    return {"prompt": "a cat", "style_image_uri": ["s3://styles/a.png"], **values}


def plan(*rows, assets=None, model=MODEL, **run):
    config = RenderRun(manifest="m", model="model", output="o", **run)
    planner = RowPlanner(config, model, assets or Assets(), PROVENANCE)
    return list(planner.plan([RawRow(values, "s3://manifests/m.parquet") for values in rows]))


def test_a_row_s_own_value_wins_over_the_preset_and_that_over_the_model():
    first, second = plan(row(), row(num_inference_steps=3), preset="fast")
    assert (first.settings.scheduler, first.settings.num_inference_steps) == ("unipc", 8)
    assert (second.settings.scheduler, second.settings.num_inference_steps) == ("unipc", 3)


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
               {"priority": 0}, {"depth_video_uri": None}, {"mode": "video"}, {"fps": 10}, {"meta_source": "web"},
               {"style_weights": [1.0]}, {"style_scale_texture": 1.0}, {"scheduler": "ddim"}, {"guidance_end": 1.0}]
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
     {"style_image_uri": ["s3://styles/a.png", "s3://styles/b.png"]}, {"negative_prompt": "blurry"},
     {"style_weights": [2.0]}, {"scheduler": "euler"}, {"guidance_start": 0.1}, {"style_scale_structure": 0.5},
     {"mode": "image"}],
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
        ({"mode": "image", "num_frames": 2}, ErrorClass.INVALID_ROW, "num_frames = 2: an image has 1"),
        ({"scheduler": "lcm", "num_inference_steps": 51}, ErrorClass.INVALID_ROW, "has at most 50"),
        (
            {"guidance_start": 0.9, "guidance_end": 0.1},
            ErrorClass.INVALID_ROW,
            "guidance_start = 0.9: must not",
        ),
        ({"conditioning_fps": 8.0}, ErrorClass.INVALID_ROW, "no fps embedding"),
        ({"style_weights": [1.0, 2.0]}, ErrorClass.INVALID_ROW, "must be one per reference, and there are 1"),
        ({"style_mix": 0.5}, ErrorClass.INVALID_ROW, "mixes exactly two references, and there are 1"),
    ],
)
def test_a_row_that_cannot_be_rendered_becomes_a_complete_record(values, error_class, said):
    [record] = plan(row(row_id="bad", **values))
    assert record["status"] == Status.INVALID
    assert record["error_class"] == error_class
    assert said in record["error"]
    assert record["row_id"] == "bad"
    assert set(record) == set(RECORD_SCHEMA.names)


def test_a_combination_of_a_sweep_that_cannot_be_rendered_is_a_record_of_its_own():
    steps, scheduler = (8, 60), ("ddim", "lcm")
    planned = plan(row(row_id="r"), sweep={"num_inference_steps": steps, "scheduler": scheduler})
    refused = [record for record in planned if isinstance(record, dict)]
    assert [record["variant"] for record in refused] == ["num_inference_steps=60,scheduler=lcm"]
    assert refused[0]["status"] == Status.INVALID
    assert refused[0]["error_class"] == ErrorClass.INVALID_ROW
    assert refused[0]["error"] == "num_inference_steps = 60: the scheduler 'lcm' has at most 50"
    assert len(planned) == 4
    assert len({one["record_id"] if isinstance(one, dict) else one.record_id for one in planned}) == 4


def test_a_sweep_decides_the_steps_whatever_the_model_has():
    sixty = replace(MODEL, defaults={**MODEL.defaults, "num_inference_steps": 60})
    assert isinstance(plan(row(), model=sixty, scheduler="lcm")[0], dict)
    [swept] = plan(row(), model=sixty, scheduler="lcm", sweep={"num_inference_steps": (8,)})
    assert swept.settings.num_inference_steps == 8


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


SWEEP = {"style_scale": (0.5, 1.0), "text_guidance_scale": (7.5, 15.0)}


def test_a_sweep_renders_each_sample_with_every_combination_from_the_same_noise():
    planned = plan(row(num_samples=2), sweep=SWEEP)
    assert [(one.sample_index, one.settings.style_scale, one.settings.text_guidance_scale) for one in planned] == [
        (sample, style, text) for sample in (0, 1) for style in (0.5, 1.0) for text in (7.5, 15.0)
    ]  # fmt: skip
    assert len({one.record_id for one in planned}) == len({one.row_key for one in planned}) == 8
    assert len({one.seed for one in planned}) == 2
    assert planned[0].variant == "style_scale=0.5,text_guidance_scale=7.5"


def test_a_combination_shares_its_video_with_the_plain_render_of_those_settings():
    [plain] = plan(row(), style_scale=0.5)
    swept, _ = plan(row(), sweep={"style_scale": (0.5, 1.0)})
    assert swept.row_key == plain.row_key
    assert swept.record_id != plain.record_id


def test_a_wider_sweep_renames_nothing():
    few = plan(row(), sweep={"style_scale": (0.5, 1.0)})
    more = plan(row(), sweep={"style_scale": (1.0, 2.0, 0.5)})
    assert {one.record_id: one.row_key for one in few}.items() < {
        one.record_id: one.row_key for one in more
    }.items()
    assert few[0].record_id == "f6f06366653c0ab06491684fdf1fea5f"


def test_a_row_that_sets_what_is_swept_refuses_the_plan():
    with pytest.raises(UsageError, match=r"has its own style_scale, which --sweep\.style-scale sweeps"):
        plan(row(style_scale=1.0), sweep=SWEEP)


def test_a_broken_row_has_one_record_and_a_missing_picture_one_per_combination():
    assert len(plan({"prompt": ""}, sweep=SWEEP)) == 1
    records = plan(row(style_image_uri=["missing"]), sweep=SWEEP)
    assert len({record["variant"] for record in records}) == len(records) == 4


IMAGES = {"num_frames": 8, "height": 128, "width": 192, "image": {"height": 256, "width": 256, "num_frames": 1,
          "text_guidance_scale": 6.0}}  # fmt: skip
DEPTH = replace(MODEL, defaults=IMAGES, depth_adapter=True)


def test_an_image_takes_the_model_s_own_settings_for_images_under_the_row_s_and_the_run_s():
    [image] = plan(row(mode="image"), model=DEPTH, fps=5, crf=30, num_frames=4)
    settings = image.settings
    assert (settings.mode, settings.num_frames, settings.height, settings.width) == ("image", 1, 256, 256)
    assert settings.text_guidance_scale == 6.0
    assert image.row_key == plan(row(mode="image"), model=DEPTH)[0].row_key
    [own] = plan(row(mode="image", height=64), model=DEPTH, mode="video", width=128)
    assert (own.settings.height, own.settings.width) == (64, 128)
    [by_run] = plan(row(), model=DEPTH, mode="image")
    assert by_run.row_key == image.row_key


def test_a_jpeg_is_another_file_and_its_settings_rename_no_video_and_no_png():
    png, jpeg = (plan(row(mode="image"), model=DEPTH, image_format=name)[0] for name in ("png", "jpeg"))
    assert jpeg.row_key != png.row_key == plan(row(mode="image"), model=DEPTH, jpeg_quality=50)[0].row_key
    assert (
        plan(row(mode="image"), model=DEPTH, image_format="jpeg", jpeg_quality=50)[0].row_key != jpeg.row_key
    )
    [video] = plan(row(), model=DEPTH, image_format="jpeg", jpeg_quality=50)
    assert video.row_key == plan(row(), model=DEPTH)[0].row_key


def test_a_window_divides_long_videos_only():
    names = {plan(row(num_frames=frames), frame_window=window)[0].row_key: (frames, window)
             for frames in (8, 32) for window in (None, 8, 16)}  # fmt: skip
    assert set(names.values()) == {(8, 16), (32, None), (32, 8), (32, 16)}
    [image] = plan(row(mode="image", frame_window=8), model=DEPTH)
    assert image.settings.frame_window is None
    [refused] = plan(row(num_frames=32, frame_window=8), speed={"attention_broadcast": (2, 4, 6)})
    assert refused["error"] == "frame_window = 8: not possible together with speed.attention_broadcast"


def test_depth_is_part_of_the_key_and_of_the_seed_and_has_its_bucket():
    [plain], [depth] = plan(row(), model=DEPTH), plan(row(depth_video_uri="d/clip.mp4"), model=DEPTH)
    assert depth.depth_video.location == "s3://manifests/d/clip.mp4"
    assert depth.seed != plain.seed
    assert depth.bucket != plain.bucket
    [newer] = plan(row(depth_video_uri="d/clip.mp4"), model=DEPTH, assets=Assets("v2"))
    assert (newer.row_id, newer.row_key != depth.row_key) == (depth.row_id, True)


def test_how_depth_is_normalised_names_rows_with_depth_alone():
    rows = row(), row(depth_video_uri="d.npy")
    plain, depth = plan(*rows, model=DEPTH)
    plain_too, by_frame = plan(*rows, model=DEPTH, depth_normalization="frame")
    assert plain.row_key == plain_too.row_key
    assert depth.row_key != by_frame.row_key


def test_a_depth_video_that_is_missing_fails_its_row():
    [record] = plan(row(depth_video_uri="s3://d/missing.mp4"), model=DEPTH)
    assert (record["status"], record["error_class"]) == (Status.FAILED, ErrorClass.ASSET_NOT_FOUND)
    assert record["depth_video_uri"] == "s3://d/missing.mp4"


def test_only_speed_that_changes_pixels_gives_another_name():
    names = {plan(row(), speed=speed)[0].row_key
             for speed in ({}, {"vae_slicing": True}, {"compile": True}, {"channels_last": True})}  # fmt: skip
    assert names == {plan(row())[0].row_key}
    others = {plan(row(), speed=speed)[0].row_key
              for speed in ({"fp8_weights": True}, {"vae_tiling": True}, {"attention_broadcast": (2, 4, 6)})}  # fmt: skip
    assert len(others - names) == 3


def test_a_model_s_sampler_and_interval_are_its_rows_defaults():
    model = replace(
        MODEL, defaults=MODEL.defaults | {"sampler": "unipc", "guidance_interval": [0.1, 0.8],
                                          "style_scale": {"structure": 0.5}}
    )  # fmt: skip
    [planned] = plan(row(), model=model)
    settings = planned.settings
    assert (settings.scheduler, settings.guidance_start, settings.guidance_end) == ("unipc", 0.1, 0.8)
    assert (settings.style_scale, settings.style_scale_structure, settings.style_scale_texture) == (
        1.0,
        0.5,
        1.0,
    )
    assert plan(row(scheduler="euler"), model=model)[0].settings.scheduler == "euler"
