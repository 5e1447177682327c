"""Stolen and foreign processor time from /proc/stat."""

import os
from pathlib import Path

import pytest

from benchmarks.cpu_time import CpuTime, others_share, read_cpu_time, stolen_share, tree_cpu_s

TICKS = os.sysconf("SC_CLK_TCK")


def test_counters_are_read_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 20 30 400 50 6 7 80 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    found = read_cpu_time(tmp_path)
    assert found is not None
    assert found.total_s * TICKS == pytest.approx(693)  # guest time is part of user time already
    assert found.idle_s * TICKS == pytest.approx(450)
    assert found.stolen_s * TICKS == pytest.approx(80)


def test_a_tree_of_processes_counts_its_descendants_and_what_they_waited_for(tmp_path: Path) -> None:
    # Parent 10 of 11 of 12; 13 is somebody else's. A command's name may hold blanks and brackets.
    for pid, parent, own, waited in ((10, 1, 100, 0), (11, 10, 50, 7), (12, 11, 30, 0), (13, 1, 999, 0)):
        (tmp_path / str(pid)).mkdir()
        rest = [0] * 9
        fields = ["S", parent, *rest, own - 1, 1, waited, 0, 20]
        text = f"{pid} (a (b) c) {' '.join(map(str, fields))}\n"
        (tmp_path / str(pid) / "stat").write_text(text)
    assert tree_cpu_s([10], tmp_path) * TICKS == pytest.approx(187)
    assert tree_cpu_s([12, 13], tmp_path) * TICKS == pytest.approx(1029)
    assert tree_cpu_s([99], tmp_path) == 0


def test_this_process_has_used_some_time() -> None:
    assert 0 < tree_cpu_s([os.getpid()]) < 1e6


def test_no_counters_no_shares(tmp_path: Path) -> None:
    assert read_cpu_time(tmp_path) is None
    assert stolen_share(None, None) is None
    assert others_share(None, None, 0.0) is None


def test_shares_of_the_time_between_two_readings() -> None:
    before = CpuTime(total_s=1000, idle_s=500, stolen_s=10)
    after = CpuTime(total_s=1100, idle_s=530, stolen_s=15)
    assert stolen_share(before, after) == pytest.approx(0.05)
    # 100 s passed: 30 idle, 5 stolen, so 65 busy, 55 of them ours.
    assert others_share(before, after, mine_s=55) == pytest.approx(0.10)
    assert stolen_share(before, before) is None
