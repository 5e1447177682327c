"""Stolen and foreign processor time from /proc/stat."""

import os
from pathlib import Path

import pytest

from benchmarks.cpu_time import CpuTime, others_share, read_cpu_time, stolen_share


def test_counters_are_read_in_seconds(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 400 50 6 7 80 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    found = read_cpu_time(stat)
    assert found is not None
    ticks = os.sysconf("SC_CLK_TCK")
    assert found.total_s * ticks == pytest.approx(693)  # guest time is part of user time already
    assert found.idle_s * ticks == pytest.approx(450)
    assert found.stolen_s * ticks == pytest.approx(80)


def test_no_counters_no_shares(tmp_path: Path) -> None:
    assert read_cpu_time(tmp_path / "absent") is None
    assert stolen_share(None, None) is None
    assert others_share(None, None) is None


def test_shares_of_the_time_between_two_readings() -> None:
    before = CpuTime(total_s=1000, idle_s=500, stolen_s=10, children_s=50)
    after = CpuTime(total_s=1100, idle_s=530, stolen_s=15, children_s=105)
    assert stolen_share(before, after) == pytest.approx(0.05)
    # 100 s passed: 30 idle, 5 stolen, so 65 busy, 55 of them in our children.
    assert others_share(before, after) == pytest.approx(0.10)
    assert stolen_share(before, before) is None
