"""What a person sees while a run goes."""

import io

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.progress import RenderProgress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_count_records_against_the_manifest_and_tell_the_time_left(clock):
    console = Console(file=io.StringIO(), width=120)
    with RenderProgress(total=10, already_done=3, to_render=5, console=console) as shown:
        shown.failed_at_plan(1)
        clock[0] += 50  # start-up: it must not count as time per row
        shown.rendered({"status": "ok"})
        clock[0] += 20
        shown.rendered({"status": "failed"})
        clock[0] += 20
        shown.rendered({"status": "ok"})
    lines = console.file.getvalue().splitlines()
    assert lines[-1] == "7/10 records: 2 ok, 2 failed, 3 reused, 20.0 s/row, 0:00:40 left"
    assert lines[0] == "5/10 records: 1 ok, 1 failed, 3 reused"


def test_a_run_of_nothing_says_so(clock):
    console = Console(file=io.StringIO(), width=120)
    with RenderProgress(total=2, already_done=2, to_render=0, console=console):
        pass
    assert console.file.getvalue() == "2/2 records: 0 ok, 0 failed, 2 reused\n"
