"""The result of a run in numbers, and the exit code they lead to."""

import pyarrow as pa
import pytest

from actors.records import Provenance
from pipeline.agreement import Finding
from pipeline.budget import Budget
from pipeline.scratch import Scratch
from pipeline.summary import RecordTotals, summarise
from schemas.record import RECORD_SCHEMA
from schemas.run import ExitCode

PROVENANCE = Provenance("now", "0.1", "f" * 64, True, "stylecrafter", "float32", 0)
PLAN = {"records": 4, "to_render": 2, "to_copy": 1, "already_done": {"ok": 1}}


NULLABLE = pa.schema([field.with_nullable(True) for field in RECORD_SCHEMA])


def record(status="ok", key="a", run_id="now", **values):
    return {"status": status, "row_key": key * 32, "run_id": run_id, **values}


def summary(*records, plan=PLAN, parts=1, problems=None):
    totals = RecordTotals(Scratch(), PROVENANCE.run_id)
    for part in range(parts):
        totals.add(pa.Table.from_pylist(records[part::parts], schema=NULLABLE))
    return summarise(plan, totals, PROVENANCE, 10.0, problems or {})


@pytest.mark.parametrize("parts", [1, 3])
def test_everything_ok(parts):
    timings = {"condition_s": 0.5, "denoise_s": 2.0, "decode_s": None, "score_s": 0.25, "encode_s": 9.0}
    result = summary(
        record(key="a", timings=timings, clip_text=0.2),
        record(key="a", timings=timings, clip_text=0.2),  # shares the video of the first
        record(key="b", timings=timings, clip_text=0.3),
        record(key="c", run_id="earlier", timings=timings, clip_text=0.1),
        parts=parts,
    )
    assert result.statuses == {"ok": 4}
    assert result.exit_code(0.0) == ExitCode.DONE
    assert (result.rendered, result.reused) == (2, 2)
    assert result.render_s == 5.5
    assert result.problems == {}
    assert result.mean_scores == {"clip_text": pytest.approx(0.2)}


def test_failed_rows_are_counted_by_class_and_weighed_against_what_is_allowed():
    result = summary(record(), record("failed", error_class="asset_not_found"), record("invalid", error_class="invalid_row"),
                     record("invalid", error_class="invalid_row"))  # fmt: skip
    assert result.error_classes == {"asset_not_found": 1, "invalid_row": 2}
    assert result.exit_code(0.74) == ExitCode.DONE_WITH_FAILED_ROWS
    assert result.exit_code(0.75) == ExitCode.DONE


def test_a_record_without_a_commit_is_missed():
    result = summary(record(), record())
    assert result.missing == 2
    assert result.exit_code(1.0) == ExitCode.INFRASTRUCTURE


@pytest.mark.parametrize(
    ("stop_at", "problems", "code", "bound"),
    [
        (0.0, {Finding.MISSING_COMMIT: 2}, ExitCode.STOPPED, "max_cost"),
        (0.0, {Finding.OUTDATED_COMMIT: 2}, ExitCode.STOPPED, "max_cost"),
        (0.0, {Finding.MISSING_COMMIT: 1, Finding.MISSING_VIDEO: 1}, ExitCode.INFRASTRUCTURE, "max_cost"),
        (1e12, {Finding.MISSING_COMMIT: 2}, ExitCode.INFRASTRUCTURE, None),
        (0.0, {}, ExitCode.DONE, None),  # the time was over when everything was done
    ],
)
def test_a_run_whose_time_was_over_is_stopped_unless_more_is_wrong(stop_at, problems, code, bound):
    records = [record()] * (4 if not problems else 2)
    totals = RecordTotals(Scratch(), PROVENANCE.run_id)
    totals.add(pa.Table.from_pylist(records, schema=NULLABLE))
    budget = Budget(began_at=0.0, stop_at=stop_at, bound="max_cost", hourly_usd=None)
    result = summarise(PLAN, totals, PROVENANCE, 10.0, problems, budget)
    assert (result.stopped, result.exit_code(0.0), result.spent_usd) == (bound, code, None)


def test_an_empty_manifest_is_done():
    plan = {"records": 0, "to_render": 0, "to_copy": 0, "already_done": {}}
    assert summary(plan=plan).exit_code(0.0) == ExitCode.DONE


def test_other_differences_are_told_by_kind():
    result = summary(*[record()] * 4, problems={Finding.MISSING_VIDEO: 2})
    assert result.as_json()["problems"] == {"missing_video": 2}
    assert result.exit_code(1.0) == ExitCode.INFRASTRUCTURE
