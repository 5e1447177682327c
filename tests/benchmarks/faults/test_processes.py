"""The clock that leaves out what processes waited for a CPU, told with a made-up one."""

import os

import pytest

from benchmarks.faults import processes
from benchmarks.faults.processes import OwnTime, waited_for_cpu_s


@pytest.fixture
def machine(monkeypatch):
    """The time, and how long each thread has waited for a CPU so far."""
    state = {"now": 100.0, "waited": {"a": 7.0}}
    monkeypatch.setattr(processes.time, "monotonic", lambda: state["now"])
    monkeypatch.setattr(processes, "waited_for_cpu_s", lambda pids: dict(state["waited"]))
    return state


def test_a_thread_that_waits_for_a_cpu_slows_the_clock_down(machine):
    clock = OwnTime(list)
    machine["now"] += 20
    assert clock.passed_s() == 20
    machine["now"] += 20
    machine["waited"] = {"a": 7.0, "b": 15.0}
    assert clock.passed_s() == 25


def test_the_clock_never_stops(machine):
    clock = OwnTime(list)
    machine["now"] += 20
    machine["waited"] = {"a": 27.0}
    assert clock.passed_s() == pytest.approx(2)


def test_waiting_is_counted_per_thread_of_living_processes():
    waited_s = waited_for_cpu_s([os.getpid(), 2**22 + 1])
    assert f"/proc/{os.getpid()}/task/{os.getpid()}" in waited_s
    assert all(value >= 0 for value in waited_s.values())
