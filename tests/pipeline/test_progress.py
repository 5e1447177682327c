"""What a person sees while a run goes."""

import io

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.eta import Eta
from pipeline.progress import RenderProgress

ROW = {"mode": "video", "num_frames": 16, "height": 64, "width": 64, "num_inference_steps": 5}
SHAPE = tuple(ROW.values())


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_count_records_against_the_manifest_and_tell_the_time_left(clock):
    console = Console(file=io.StringIO(), width=120)
    eta = Eta({SHAPE: 1.0}, {SHAPE: 5})
    with RenderProgress(total=10, already_done=3, eta=eta, console=console) as shown:
        shown.failed_at_plan(1)
        clock[0] += 50  # start-up: it must not count as time per row
        shown.rendered(ROW | {"status": "ok"})
        clock[0] += 20
        shown.rendered(ROW | {"status": "failed"})
        clock[0] += 20
        shown.rendered(ROW | {"status": "ok"})
    lines = console.file.getvalue().splitlines()
    assert lines[-1] == "7/10 records: 2 ok, 2 failed, 3 reused, 20.0 s/row, 0:00:40 left"
    assert lines[0] == "5/10 records: 1 ok, 1 failed, 3 reused"


def test_a_run_of_nothing_says_so(clock):
    console = Console(file=io.StringIO(), width=120)
    with RenderProgress(total=2, already_done=2, eta=Eta({}, {}), console=console):
        pass
    assert console.file.getvalue() == "2/2 records: 0 ok, 0 failed, 2 reused\n"
