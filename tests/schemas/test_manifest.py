from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from schemas.manifest import (
    COLUMNS,
    MAX_META_BYTES,
    InvalidRowError,
    ManifestError,
    broken_row_id,
    check_columns,
    manifest_schema,
    parse_row,
)
from schemas.manifest_row import MAX_PROMPT_CHARS

GOOD: dict[str, Any] = {"prompt": "A wolf.", "style_image_uri": ["s3://bucket/ink.png"]}


def test_a_minimal_row_leaves_everything_else_open() -> None:
    row = parse_row(GOOD)
    assert row.style_image_uri == ["s3://bucket/ink.png"]
    assert (row.num_samples, row.priority) == (1, 0)
    assert row.model_dump(exclude_defaults=True) == GOOD


def test_a_full_row_is_kept_as_it_is() -> None:
    full = GOOD | {
        "depth_video_uri": "d.mp4",
        "row_id": "wolf-1",
        "negative_prompt": "blurry",
        "seed": 2**63 - 1,
        "num_frames": 8,
        "height": 320,
        "width": 512,
        "fps": 8,
        "num_inference_steps": 25,
        "text_guidance_scale": 12.0,
        "style_guidance_scale": 5.0,
        "style_scale": 0.5,
        "num_samples": 3,
        "priority": -5,
        "mode": "image",
        "style_weights": (2.0,),
        "style_mix": None,
        "style_scale_structure": 0.5,
        "style_scale_texture": 2.0,
        "scheduler": "dpm++",
        "guidance_start": 0.1,
        "guidance_end": 0.9,
        "conditioning_fps": 24.0,
        "depth_normalization": "frame",
        "frame_window": 16,
    }
    assert set(full) == set(COLUMNS)
    assert parse_row(full).model_dump(exclude={"meta"}) == full


def _problems(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidRowError) as caught:
        parse_row(raw)
    return caught.value.problems


def test_weights_of_one_are_none_and_others_fit_the_references() -> None:
    two = GOOD | {"style_image_uri": ["a.png", "b.png"]}
    assert parse_row(two | {"style_weights": [1.0, 1.0]}).style_weights is None
    assert parse_row(two | {"style_weights": ["2", "0"]}).style_weights == (2.0, 0.0)
    assert parse_row(two | {"style_mix": 0.5}).style_mix == 0.5
    assert _problems(two | {"style_weights": [1.0]}) == [
        "style_weights = [1.0]: must be one per reference, and there are 2"
    ]
    assert _problems(two | {"style_weights": [0.0, 0.0]}) == [
        "style_weights = [0.0, 0.0]: at least one must be above 0"
    ]
    assert "style_weights = [True, 1.0]: a truth value" in _problems(two | {"style_weights": [True, 1.0]})[0]
    assert (
        "together with style_weights" in _problems(two | {"style_weights": [1.0, 2.0], "style_mix": 0.1})[0]
    )
    assert "style_mix = 0.1: mixes exactly two" in _problems(GOOD | {"style_mix": 0.1})[0]


def test_a_plain_string_is_one_reference() -> None:
    assert parse_row({"prompt": "p", "style_image_uri": "a.png"}).style_image_uri == ["a.png"]


def test_null_means_absent() -> None:
    row = parse_row(GOOD | {"num_samples": None, "seed": None, "meta_split": None})
    assert (row.num_samples, row.seed, row.meta) == (1, None, None)


def test_numbers_may_be_text_as_in_csv() -> None:
    row = parse_row(GOOD | {"num_frames": "8", "style_scale": "0.5"})
    assert (row.num_frames, row.style_scale) == (8, 0.5)


def test_unknown_columns_are_ignored_and_meta_columns_carried() -> None:
    row = parse_row(GOOD | {"comment": object(), "meta_split": "train", "meta_b": 2})
    assert row.meta == '{"meta_b":2,"meta_split":"train"}'


def test_line_breaks_and_every_script_are_good_prompts() -> None:
    prompt = "Zwei\nZeilen\tund \u6c34\u58a8\u753b \U0001f43a"
    assert parse_row(GOOD | {"prompt": prompt}).prompt == prompt


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prompt", "", "must not be empty"),
        ("prompt", " \n ", "must not be empty"),
        ("prompt", 5, "valid string"),
        ("prompt", "x" * (MAX_PROMPT_CHARS + 1), "at most 4096 characters"),
        ("prompt", "null\x00byte", r"U\+0000 at position 4"),
        ("prompt", "half \ud83d", "not valid Unicode text"),
        ("style_image_uri", [], "at least 1 item"),
        ("style_image_uri", ["a.png"] * 17, "at most 16 items"),
        ("style_image_uri", ["a.png", ""], r"style_image_uri\.1 = ''.*must not be empty"),
        ("style_image_uri", ["a.png", None], r"style_image_uri\.1 = None.*valid string"),
        ("style_image_uri", {"uri": "a.png"}, "valid list"),
        ("style_image_uri", "a" * 2049, "at most 2048 characters"),
        ("depth_video_uri", " ", "must not be empty"),
        ("row_id", "", "must not be empty"),
        ("row_id", "r" * 257, "at most 256 characters"),
        ("row_id", "a\x1bb", r"U\+001B"),
        ("negative_prompt", "\x07", r"U\+0007"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**63, "less than 9223372036854775808"),
        ("seed", 1.5, "fractional part"),
        ("num_frames", 0, "greater than or equal to 1"),
        ("num_frames", 513, "less than or equal to 512"),
        ("num_frames", "many", "valid integer"),
        ("height", 8, "greater than or equal to 16"),
        ("width", 5000, "less than or equal to 4096"),
        ("fps", 0, "greater than or equal to 1"),
        ("num_inference_steps", 1001, "less than or equal to 1000"),
        ("text_guidance_scale", float("nan"), "text_guidance_scale = nan"),
        ("text_guidance_scale", float("inf"), "text_guidance_scale = inf"),
        ("style_guidance_scale", -0.1, "greater than or equal to 0"),
        ("style_scale", 11, "less than or equal to 10"),
        ("num_samples", 0, "greater than or equal to 1"),
        ("priority", 2**31, "less than 2147483648"),
        ("mode", "gif", "'video' or 'image'"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(field: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidRowError, match=said) as caught:
        parse_row(GOOD | {field: value})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(field)


@pytest.mark.parametrize("field", ["prompt", "style_image_uri"])
def test_a_missing_required_value_is_named(field: str) -> None:
    with pytest.raises(InvalidRowError) as caught:
        parse_row(GOOD | {field: None})
    assert caught.value.problems == [f"{field}: is missing"]


def test_all_problems_of_a_row_are_told_at_once() -> None:
    with pytest.raises(InvalidRowError) as caught:
        parse_row({"prompt": "", "num_frames": 0, "mode": "gif"})
    assert [problem.split()[0].strip(":") for problem in caught.value.problems] == [
        "prompt",
        "style_image_uri",
        "num_frames",
        "mode",
    ]


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidRowError) as caught:
        parse_row(GOOD | {"mode": "x" * 100_000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("x" * (MAX_META_BYTES + 1), "at most 65536"),
    ],
)
def test_meta_that_cannot_be_carried_is_refused(meta: Any, said: str) -> None:
    with pytest.raises(InvalidRowError, match=said):
        parse_row(GOOD | {"meta_note": meta})


def test_a_missing_column_is_an_error_that_lists_what_is_there() -> None:
    with pytest.raises(ManifestError, match="lacks the column 'style_image_uri'; it has 'prompt', 'style'"):
        check_columns(["prompt", "style"])


def test_unknown_columns_are_warned_about_with_a_suggestion() -> None:
    warnings = check_columns(["prompt", "style_image_uri", "num_frame", "zzz", "meta_x"])
    assert len(warnings) == 2
    assert "'num_frame'" in warnings[0]
    assert "did you mean 'num_frames'" in warnings[0]
    assert "'meta_zzz'" in warnings[1]


def test_the_arrow_schema_types_every_column() -> None:
    schema = manifest_schema([*COLUMNS, "meta_x"])
    assert schema.field("style_image_uri").type == pa.list_(pa.string())
    assert schema.field("seed").type == pa.int64()
    assert schema.field("meta_x").type == pa.string()


def test_a_broken_row_keeps_a_usable_id_and_gets_one_otherwise() -> None:
    assert broken_row_id({"row_id": "wolf", "prompt": 1}) == "wolf"
    ids = [broken_row_id({"row_id": bad, "prompt": 1}) for bad in (None, "", "a\x00", "r" * 257, 7)]
    assert all(row_id.startswith("x-") for row_id in ids)
    assert len(set(ids)) == len(ids)
    assert broken_row_id({"prompt": 1}) == broken_row_id({"prompt": 1})


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        (float("nan"), "null"),
        (b"bytes", '"Ynl0ZXM="'),
        (datetime(2026, 1, 2, 3, 4), '"2026-01-02 03:04:00"'),
        (Decimal("1.50"), '"1.50"'),
        ([1, {"a": None}], '[1,{"a":null}]'),
    ],
)
def test_metadata_of_any_parquet_type_is_carried(value: Any, carried: str) -> None:
    row = parse_row({"prompt": "a", "style_image_uri": "b", "meta_x": value})
    assert row.meta == f'{{"meta_x":{carried}}}'


def test_a_uri_keeps_its_unicode_form_and_an_id_does_not() -> None:
    decomposed = "e\u0301"
    row = parse_row({"prompt": "a", "style_image_uri": f"s3://b/{decomposed}.png", "row_id": decomposed})
    assert row.style_image_uri == [f"s3://b/{decomposed}.png"]
    assert row.row_id == "\u00e9"
