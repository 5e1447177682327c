"""The scale benchmark: its steps do what they are measured for, and its figures have the names that are looked for."""

import pytest

from benchmarks import scale
from benchmarks.null_run import write_manifest, write_null_model
from benchmarks.scale import Measured, StepError, figures


def test_the_steps_follow_each_other_to_an_output_that_agrees(tmp_path):
    write_manifest(tmp_path / "manifest.parquet", 130, styles=7)
    write_null_model(tmp_path / "model")
    for step in (scale._new, scale._resume, scale._reconcile):
        assert all(seconds > 0 for seconds in step(tmp_path, 130).values())
    assert len(list((tmp_path / "out" / "commits").rglob("*.json"))) == 130
    assert (tmp_path / "out" / "_SUCCESS").exists()
    with pytest.raises(StepError, match="0 of 130 rows to render"):
        scale._new(tmp_path, 130)


def test_figures_are_of_each_size_and_memory_of_the_largest_against_the_smallest():
    seconds = {"plan": 2.0, "write units": 1.0, "close": 9.0}
    measured = [
        Measured(step, rows, seconds, 300.0 + rows / 10**5)
        for rows in (100_000, 1_000_000)
        for step in ("new", "resume", "reconcile")
    ]
    assert {figure.name: figure.value for figure in figures(measured)} == {
        "plan_100k_s": 2.0,
        "resume_100k_s": 3.0,
        "plan_1m_s": 2.0,
        "resume_1m_s": 3.0,
        "driver_rss_growth_mib": 9.0,
    }
