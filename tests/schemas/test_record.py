"""The record schema: readers of finished datasets depend on its names and types."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.record import RECORD_SCHEMA, SCHEMA_VERSION, ErrorClass, RowError, Status, records_table

PINNED = json.loads((Path(__file__).parents[1] / "data" / "record_schema.json").read_text())
MINIMAL = {
    "row_id": "r",
    "record_id": "0" * 32,
    "sample_index": 0,
    "variant": "",
    "status": "ok",
    "attempts": 1,
    "run_id": "run",
    "key_version": 1,
    "render_epoch": 0,
    "schema_version": 1,
    "finished_at": datetime(2026, 1, 2, tzinfo=UTC),
}


def test_schema_is_the_pinned_one() -> None:
    fields = [
        {"name": field.name, "type": str(field.type), "nullable": field.nullable} for field in RECORD_SCHEMA
    ]
    assert fields == PINNED["fields"]
    assert PINNED["schema_version"] == SCHEMA_VERSION


def test_fields_that_a_record_lacks_are_null() -> None:
    table = records_table([MINIMAL])
    assert table.schema.equals(RECORD_SCHEMA)
    row = table.to_pylist()[0]
    assert {name: row[name] for name in MINIMAL} == MINIMAL
    assert all(row[name] is None for name in RECORD_SCHEMA.names if name not in MINIMAL)


def test_a_table_without_records_has_the_schema() -> None:
    assert records_table([]).schema.equals(RECORD_SCHEMA)


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"record 'r' has unknown fields \['clip_txt'\]"):
        records_table([MINIMAL | {"clip_txt": 0.3}])


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        records_table([MINIMAL | {"attempts": "many"}])


def test_statuses_and_error_classes_keep_their_names() -> None:
    assert {status.value for status in Status} == {"ok", "invalid", "failed", "quarantined"}
    assert {error.value for error in ErrorClass} >= {
        "invalid_row",
        "duplicate_row_id",
        "uri_forbidden",
        "asset_not_found",
        "asset_undecodable",
        "asset_changed",
        "out_of_memory",
        "non_finite",
        "encode_failed",
        "render_failed",
    }


def test_a_row_error_is_a_failed_row_unless_it_says_otherwise() -> None:
    error = RowError(ErrorClass.NON_FINITE, "frame 3 is not finite")
    assert (error.status, str(error)) == (Status.FAILED, "frame 3 is not finite")
    assert RowError(ErrorClass.INVALID_ROW, "x", Status.INVALID).status is Status.INVALID
