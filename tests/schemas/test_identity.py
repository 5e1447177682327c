"""The golden keys: names under which videos already lie in object stores."""

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from schemas.identity import (
    KEY_VERSION,
    canonical_json,
    content_row_id,
    media_path,
    media_suffix,
    record_id,
    repeated_row_id,
    row_key,
    row_seed,
)
from schemas.settings import V1_SETTING_NAMES, RenderSettings

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_keys.json").read_text())
CASES = {case["name"]: case for case in GOLDEN["cases"]}


def names_of(case: dict[str, Any], settings_type: type[RenderSettings] = RenderSettings) -> dict[str, Any]:
    """All four names of one video, as a plan computes them."""
    asked = GOLDEN["base"] | case
    uris = [uri for uri, _ in asked["style_images"]]
    depth = tuple(asked["depth_video"]) if asked["depth_video"] else None
    seed = row_seed(
        run_seed=asked["run_seed"],
        prompt=asked["prompt"],
        style_image_uri=uris,
        depth_video_uri=depth[0] if depth else None,
        sample_index=asked["sample_index"],
        manifest_seed=asked["manifest_seed"],
    )
    key = row_key(
        prompt=asked["prompt"],
        style_images=[(uri, version) for uri, version in asked["style_images"]],
        depth_video=depth,
        sample_index=asked["sample_index"],
        seed=seed,
        settings_changed=settings_type(**asked["settings"]).changed_from_v1(),
        engine=asked["engine"],
        dtype=asked["dtype"],
        model_fingerprint=asked["model_fingerprint"],
        render_epoch=asked["render_epoch"],
    )
    row_id = content_row_id({"prompt": asked["prompt"], "style_image_uri": uris} | asked["settings"])
    return {
        "seed": seed,
        "row_key": key,
        "row_id": row_id,
        "record_id": record_id(row_id, asked["sample_index"]),
    }


@pytest.mark.parametrize("name", CASES)
def test_golden_names_have_not_moved(name: str) -> None:
    assert GOLDEN["key_version"] == KEY_VERSION
    assert names_of(CASES[name]["changed"]) == CASES[name]["expected"]


def test_cases_differ_in_their_row_key_except_for_the_two_spellings_of_one_prompt() -> None:
    keys = {name: case["expected"]["row_key"] for name, case in CASES.items()}
    assert keys["composed prompt"] == keys["decomposed prompt"]
    assert len(set(keys.values())) == len(keys) - 1


def test_the_two_spellings_of_the_prompt_really_differ() -> None:
    composed = CASES["composed prompt"]["changed"]["prompt"]
    decomposed = CASES["decomposed prompt"]["changed"]["prompt"]
    assert composed != decomposed == unicodedata.normalize("NFD", composed)


def test_row_key_is_the_sha256_of_a_document_written_out_by_hand() -> None:
    document = (
        '{"depth_video":null,"dtype":"float32","engine":"published","key_version":1,'
        '"model_fingerprint":"ffffffffffffffff","prompt":"A wolf walking through the forest.","render_epoch":0,'
        '"sample_index":0,"seed":%d,"settings":{},"style_images":[["s3://bucket/styles/ink.png","etag-1"]]}'
    )
    expected = CASES["one reference"]["expected"]
    written = (document % expected["seed"]).encode()
    assert expected["row_key"] == hashlib.sha256(written).hexdigest()[:32]


def test_a_setting_added_later_with_a_default_moves_no_key() -> None:
    class LaterSettings(RenderSettings):
        sharpness: float = 0.25

    for case in CASES.values():
        assert names_of(case["changed"], LaterSettings) == case["expected"]
    changed = LaterSettings(sharpness=0.5).changed_from_v1()
    assert changed == {"sharpness": 0.5}


def test_the_frozen_v1_defaults() -> None:
    defaults = RenderSettings().model_dump()
    assert {name: defaults[name] for name in V1_SETTING_NAMES} == {
        "mode": "video",
        "num_frames": 16,
        "height": 320,
        "width": 512,
        "fps": 10,
        "num_inference_steps": 50,
        "text_guidance_scale": 15.0,
        "style_guidance_scale": 7.5,
        "style_scale": 1.0,
        "negative_prompt": "",
        "eta": 1.0,
        "guidance": "published",
        "crf": 10,
    }


def test_the_defaults_of_later_settings_are_frozen_too() -> None:
    defaults = RenderSettings().model_dump()
    assert {name: value for name, value in defaults.items() if name not in V1_SETTING_NAMES} == {
        "style_weights": None,
        "style_mix": None,
        "style_scale_structure": 1.0,
        "style_scale_texture": 1.0,
        "scheduler": "ddim",
        "guidance_start": 0.0,
        "guidance_end": 1.0,
        "conditioning_fps": None,
        "depth_normalization": "clip",
        "image_format": "png",
        "jpeg_quality": 95,
        "frame_window": None,
    }


def test_a_file_is_named_by_its_key_and_mode() -> None:
    assert media_path("ab12") == "videos/ab/ab12.mp4"
    assert media_path("ab12", media_suffix("image")) == "videos/ab/ab12.png"
    assert media_path("ab12", media_suffix("image", "jpeg")) == "videos/ab/ab12.jpg"
    assert media_suffix(None) == media_suffix("video", "png") == "mp4"


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": {"num_inference_steps": 5}},
        {"model_fingerprint": "another"},
        {"engine": "fast"},
        {"dtype": "bfloat16"},
        {"render_epoch": 9},
        {"style_images": [["s3://bucket/styles/ink.png", "another-etag"]]},
    ],
)
def test_the_seed_ignores_settings_model_and_hardware(changed: dict[str, Any]) -> None:
    plain, other = names_of({}), names_of(changed)
    assert other["seed"] == plain["seed"]
    assert other["row_key"] != plain["row_key"]


def test_seeds_fit_a_signed_parquet_column_and_differ_by_sample() -> None:
    seeds = [
        row_seed(run_seed=0, prompt="p", style_image_uri=["s"], depth_video_uri=None, sample_index=index)
        for index in range(200)
    ]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_a_seed_in_the_manifest_replaces_prompt_and_run_seed_but_not_the_sample() -> None:
    def seed(prompt: str, run_seed: int, sample_index: int) -> int:
        return row_seed(
            run_seed=run_seed,
            prompt=prompt,
            style_image_uri=["s"],
            depth_video_uri=None,
            sample_index=sample_index,
            manifest_seed=7,
        )

    assert seed("a", 0, 0) == seed("b", 1, 0) != seed("a", 0, 1)


def test_canonical_json_sorts_keys_and_refuses_nan() -> None:
    assert canonical_json({"b": (1, None), "a": "e\u0301"}) == '{"a":"\u00e9","b":[1,null]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_record_ids_tell_row_sample_and_variant_apart() -> None:
    ids = {
        record_id("r", 0),
        record_id("r", 1),
        record_id("r", 0, "b"),
        record_id("r0", 0),
        record_id("../r", 0),
    }
    assert len(ids) == 5
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in ids)


def test_repeated_row_ids_keep_the_first_name() -> None:
    assert [repeated_row_id("r", n) for n in (1, 2, 3)] == ["r", "r~2", "r~3"]
