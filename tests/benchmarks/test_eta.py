"""What a run's log says of the time left, beside what it was."""

import pytest

from benchmarks.eta import readings


def event(second, message):
    return {"time": f"2026-03-01T02:{second // 60:02d}:{second % 60:02d}.000+00:00", "message": message}


def test_times_left_are_read_from_a_fifth_of_the_rows_on():
    rows = [event(30 + 10 * n, "row finished") for n in range(10)]  # the last at 120 s
    lines = {31: "1/10 records: 1 ok, 0:00:01 left", 41: "2/10 records: 2 ok, 9.0 s/row, 0:01:19 left",
             71: "5/10 records: no time", 82: "6/10 records: 0:00:19 left", 115: "9/10 records: 0:00:40 left"}  # fmt: skip
    found = readings(sorted([*rows, *(event(*line) for line in lines.items())], key=lambda one: one["time"]))
    assert [(one.share, one.shown_s, one.was_s) for one in found] == [(0.2, 79, 79), (0.6, 19, 38)]
    assert [one.error for one in found] == pytest.approx([0, -0.5])


def test_a_run_without_rows_has_none():
    assert readings([event(1, "planned")]) == []
