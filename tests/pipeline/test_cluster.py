"""The Ray of a run: what its death means for the process."""

import contextlib
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
import ray

from pipeline import cluster
from schemas.run import ExitCode, InfrastructureError


@pytest.fixture
def dead_ray(monkeypatch):
    """A local Ray whose raylet has died; the exit codes with which the process was ended."""
    codes, ended = [], threading.Event()

    def end(code):
        codes.append(code)
        ended.set()

    node = SimpleNamespace(dead_processes=lambda: [("raylet", None)])
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    monkeypatch.setattr(cluster, "is_remote", lambda: False)
    monkeypatch.setattr(cluster, "_WATCH_EVERY_S", 0.01)
    monkeypatch.setattr(cluster.os, "_exit", end)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return SimpleNamespace(codes=codes, ended=ended)


def test_the_death_of_ray_ends_a_run_that_waits(dead_ray):
    with pytest.raises(InfrastructureError, match="Ray's raylet has died"), cluster._ended_with_ray():
        threading.Event().wait(30)
    assert dead_ray.codes == []


def test_a_run_that_is_stuck_in_a_dead_ray_does_not_end_as_if_it_were_done(dead_ray, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "_LAST_WORD_S", 0.01)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as good as native code that never returns
    try:
        with contextlib.suppress(InfrastructureError), cluster._ended_with_ray():
            assert dead_ray.ended.wait(30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert dead_ray.codes == [ExitCode.INFRASTRUCTURE]
    assert "infrastructure error: Ray's raylet has died" in capsys.readouterr().err


def test_a_stop_while_ray_starts_is_the_job_s(monkeypatch):
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    def start_ray():
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(signum))  # as ray.init does
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cluster, "_start_ray", start_ray)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), cluster.ray_session():
            pass
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
