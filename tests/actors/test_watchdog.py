"""Time limits on this process itself (those on others are tested where they are used)."""

import io
import subprocess
import sys
import threading
import time

import pytest

from actors.watchdog import Deadline

_STUCK = """
import io, sys, threading
from actors import watchdog
watchdog._GRACE_S = 0
sys.stderr = io.StringIO()
with watchdog.Deadline(0.01, lambda: None):
    threading.Event().wait(60)
"""


def test_a_block_in_time_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as tests and Ray do: it has no descriptor
    ended = threading.Event()
    with Deadline(3600, ended.set):
        pass
    with Deadline(float("inf"), ended.set):
        pass
    assert not ended.is_set()


def test_a_block_that_takes_longer_is_ended() -> None:
    ended = threading.Event()
    with Deadline(0.01, ended.set):
        assert ended.wait(30)


def test_a_process_whose_end_does_not_come_is_ended_and_tells_where_it_was() -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _STUCK], capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 55
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "threading.py" in done.stderr
