"""The configs of the training jobs."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.train_run import (
    FREE_FIELDS,
    TrainBaseRun,
    TrainJointRun,
    TrainRun,
    TrainStyleRun,
    TrainTemporalRun,
)

GOOD: dict[str, Any] = {"data": "d.parquet", "model": "model/", "output": "s3://bucket/run/"}
MIXED = GOOD | {"style_data": "s.parquet"}


def test_the_published_recipe_is_the_default() -> None:
    style, temporal = TrainStyleRun(**GOOD), TrainTemporalRun(**MIXED)
    assert (style.image_share, style.drop_text, style.drop_style, style.augment_references) == (
        1,
        0.1,
        0.1,
        True,
    )
    assert (style.fusion, style.new_adapter) == ("adaptive", True)
    assert (temporal.image_share, temporal.image_batch) == (0.2, 16)
    assert TrainBaseRun(**GOOD).image_share == 0
    assert [config.stage for config in (TrainBaseRun, TrainStyleRun, TrainTemporalRun, TrainJointRun)] == [
        "base",
        "style",
        "temporal",
        "joint",
    ]


def test_where_rows_come_from() -> None:
    assert TrainStyleRun(**GOOD).manifests == ("d.parquet",)
    assert TrainTemporalRun(**MIXED).manifests == ("d.parquet", "s.parquet")
    assert (TrainStyleRun(**GOOD).model, TrainStyleRun(**GOOD).output) == ("model", "s3://bucket/run")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 10, "warmup_steps": 10}, "warmup_steps = 10: must be less than steps = 10"),
        ({"steps": 0, "warmup_steps": 0}, "steps"),
        ({"ema_decay": 1}, "less than 1"),
        ({"max_grad_norm": 0}, "greater than 0"),
        ({"max_grad_norm": float("inf")}, "finite"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"drop_text": 1.5}, "less than or equal to 1"),
        ({"seed": -1}, "seed"),
        ({"accumulation": 0}, "accumulation"),
        ({"data": " "}, "must not be empty"),
        ({"output": "gs://b/x"}, "is not one of file, s3"),
        ({"model": "published"}, "it needs --dry-run"),
        ({"image_share": 0.5}, "image_share = 0.5: stage 1 trains on images alone, must be 1"),
        ({"fusion": "append", "new_adapter": False}, "fusion = append: needs a new adapter"),
        ({"batch": 1}, "batch"),
    ],
)
def test_what_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TrainStyleRun(**GOOD | given)


def test_the_published_architecture_is_for_dry_runs() -> None:
    assert TrainStyleRun(**GOOD | {"model": "published", "dry_run": True}).model == "published"


@pytest.mark.parametrize("config", [TrainBaseRun, TrainStyleRun, TrainTemporalRun, TrainJointRun])
def test_the_identity_holds_all_that_shapes_a_run(config: type[TrainRun]) -> None:
    values = MIXED if "style_data" in config.model_fields else GOOD
    run = config(**values)
    assert config.model_fields.keys() >= FREE_FIELDS
    found = run.identity()
    assert found.keys() == (config.model_fields.keys() - FREE_FIELDS - {"workers", "accumulation"}) | {
        "stage",
        "micro_batches_per_step",
    }
    assert config(**values | {"log_every": 3, "keep_checkpoints": 9, "samples": 1}).identity() == found
    assert config(**values | {"seed": 1}).identity() != found


def test_workers_and_accumulation_count_together() -> None:
    two, one = TrainStyleRun(**GOOD, workers=2), TrainStyleRun(**GOOD, accumulation=2)
    assert two.identity() == one.identity()
    assert TrainStyleRun(**GOOD, workers=2, accumulation=2).micro_batches_per_step == 4
    assert TrainStyleRun(**GOOD).identity() != one.identity()
