"""Columns and rows of training manifests."""

import pyarrow as pa
import pytest
from pydantic import ValidationError

from schemas.data_plan import DataPlan
from schemas.manifest import ManifestError
from schemas.training import TRAINING_SCHEMA, check_training_schema, usable_rows


def test_usable_rows_and_the_reasons_of_the_others() -> None:
    rows = [
        {"uri": "a.PNG", "caption": "a cat"},
        {"uri": "b.mp4", "caption": "", "style_id": "7"},
        {"uri": "https://x.org/c.webm?sig=1.png", "caption": "c", "style_id": " "},
        {"uri": "d", "caption": "d", "kind": " Video "},
        {"uri": "e.png", "caption": "e", "kind": "video"},
        {"uri": None, "caption": "f"},
        {"uri": " ", "caption": "g"},
        {"uri": "h.png", "caption": None},
        {"uri": "i.txt", "caption": "i"},
        {"uri": "j.png", "caption": "j", "kind": "sound"},
        {"uri": "k\n.png", "caption": "k"},
        {"uri": "l" * 3000 + ".png", "caption": "l"},
        {"uri": "m.png", "caption": "m" * 5000},
        {"uri": None, "caption": None},
    ]
    names = ("uri", "caption", "style_id", "kind")
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    found, skipped = usable_rows(table)
    assert found.schema == TRAINING_SCHEMA
    assert found["kind"].to_pylist() == ["image", "video", "video", "video", "video"]
    assert found["style_id"].to_pylist() == [None, "7", None, None, None]
    assert dict(skipped) == {
        "uri is missing": 3,
        "uri has more than 2048 characters": 1,
        "uri holds a control character": 1,
        "caption is missing": 1,
        "caption has more than 4096 characters": 1,
        "kind is not one of image, video": 1,
        "kind is not given and cannot be told by the suffix": 1,
    }


def test_text_may_be_encoded_in_any_way_and_style_ids_may_be_numbers() -> None:
    table = pa.table(
        {
            "uri": pa.array(["a.png", "a.png"]).dictionary_encode(),
            "caption": pa.array(["x", "y"], pa.large_string()),
            "style_id": pa.array([3, None], pa.int32()),
            "meta_source": [1, 2],
        }
    )
    assert check_training_schema(table.schema) == []
    found, skipped = usable_rows(table)
    assert found["style_id"].to_pylist() == ["3", None]
    assert not skipped


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"uri": pa.string()}, "lacks the column 'caption'; it has 'uri'"),
        ({"caption": pa.string(), "url": pa.string()}, "lacks the column 'uri'"),
        ({"uri": pa.int64(), "caption": pa.string()}, "column 'uri' has the type int64; it must hold text"),
        ({"uri": pa.string(), "caption": pa.list_(pa.string())}, "column 'caption' has the type list"),
        ({"uri": pa.string(), "caption": pa.string(), "style_id": pa.float32()}, "column 'style_id'"),
    ],
)
def test_broken_schemas(schema: dict[str, pa.DataType], sentence: str) -> None:
    with pytest.raises(ManifestError, match=sentence):
        check_training_schema(pa.schema(list(schema.items())))


def test_unknown_columns_are_told() -> None:
    schema = pa.schema([("uri", pa.string()), ("caption", pa.string()), ("styel", pa.string())])
    [warning] = check_training_schema(schema)
    assert "'styel'" in warning


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"manifests": ()}, "manifests"),
        ({"manifests": (" ",)}, "manifests"),
        ({"image_share": 1.1}, "image_share"),
        ({"height": 8}, "height"),
        ({"readers": 0}, "readers"),
        ({"references": False, "other_reference_share": 0.5}, "other_reference_share"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_plans_are_checked(values: dict, field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        DataPlan(**({"manifests": ("m.parquet",), "height": 64, "width": 64} | values))


def test_the_image_share_is_the_decimal_that_was_written() -> None:
    plan = DataPlan(manifests=("m",), height=64, width=64, image_share=0.07)
    assert plan.exact_image_share.numerator == 7
    assert plan.kinds == ("image", "video")
    assert plan.model_copy(update={"image_share": 1.0}).kinds == ("image",)
    assert plan.model_copy(update={"image_share": 0.0}).kinds == ("video",)


def test_blocks_hold_more_of_what_is_small() -> None:
    plan = DataPlan(manifests=("m",), height=64, width=64, image_share=0.2, num_frames=8, references=False)
    assert plan.micro_batches_per_block == 16
    large = plan.model_copy(update={"height": 320, "width": 512, "num_frames": 16})
    assert large.micro_batches_per_block == 1
    assert plan.model_copy(update={"block_size": 3}).micro_batches_per_block == 3
