"""A fault happens once however many ask, and what happened is written down in order."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.faults.actions import act
from benchmarks.faults.audit import Problem
from benchmarks.faults.fault import Fault, FaultDirectory, spread
from benchmarks.faults.hooks import Hooks, patch
from benchmarks.faults.processes import is_alive, wait_until
from benchmarks.faults.result import Result
from benchmarks.faults.table import figures, table


@pytest.fixture
def directory(tmp_path):
    found = FaultDirectory(tmp_path / "life")
    found.create(
        [
            Fault("once", "nan", row_id="r1", action="nan"),
            Fault("always", "nan", row_id="r2", action="nan", lasting=True),
            Fault("gone", "kill_driver", point="render", row_id="r3", action="kill-driver"),
        ]
    )
    return found


def test_a_fault_is_claimed_by_one_of_many(directory):
    [once, always, _] = directory.faults()
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda _: directory.claim(once), range(50))) == 1
    assert all(directory.claim(always) for _ in range(3))
    assert directory.fired() == {"once", "always"}


def test_events_come_back_in_order(directory):
    for name in ("rendering", "published", "committed"):
        directory.log(name, "k", "r1")
    assert [(event.name, event.row_key) for event in directory.events()] == [
        ("rendering", "k"),
        ("published", "k"),
        ("committed", "k"),
    ]


def test_hooks_spoil_the_row_that_a_fault_names(directory):
    hooks = Hooks(directory)
    assert [hooks.spoiled("nan", row_id) for row_id in ("r1", "r1", "r2", "r2", "r9")] == [
        True,
        False,
        True,
        True,
        False,
    ]


def test_a_kill_hits_a_living_driver_once_and_no_dead_one(directory):
    hooks = Hooks(directory)
    hooks.at("render", "r3")
    assert directory.fired() == set()  # there is no driver yet
    process = multiprocessing.get_context("fork").Process(target=_sleep)
    process.start()
    directory.write_pid("driver", process.pid)
    hooks.at("uploaded", "r3")
    hooks.at("render", "r4")
    assert is_alive(process.pid)
    hooks.at("render", "r3")
    process.join(10)
    assert process.exitcode == -9
    assert directory.fired() == {"gone"}


def _sleep():
    wait_until(lambda: False, 60)


def test_act_refuses_an_unknown_action(directory):
    with pytest.raises(KeyError):
        act(Fault("x", "nan", action="juggle"), directory)


def test_patch_fails_loudly_where_the_product_has_changed():
    class Product:
        def work(self):
            return 1

    patch(Product, "work", lambda original, self: original(self) + 1)
    assert Product().work() == 2
    with pytest.raises(AttributeError):
        patch(Product, "gone", lambda original, self: None)


def test_spread():
    assert spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert spread(list(range(3)), 3) == [0, 1, 2]
    assert spread([], 0) == []


def test_the_table_counts_a_broken_promise_for_the_kind_that_met_its_row():
    faults = [
        Fault("a", "nan", row_id="r1"),
        Fault("b", "bomb", row_id="r2"),
        Fault("c", "bomb", row_id="r3"),
    ]
    lost, wrong = Problem("lost", "r2", "no record"), Problem("wrong", "r7", "not ok")
    result = Result("inputs", injected=faults, problems=[lost, wrong])
    lines = [line.split() for line in table([result], ["nan", "bomb"]).splitlines()]
    assert lines[1] == ["nan", "1", "1", "0", "0", "0", "0"]
    assert lines[2] == ["bomb", "2", "1", "1", "0", "0", "0"]
    assert lines[3][-4:] == ["0", "0", "0", "1"]
    assert lines[4] == ["all", "3", "2", "1", "0", "0", "1"]
    values = {figure.name: figure.value for figure in figures([result])}
    assert values == {"faults_injected": 3, "faults_lost": 1, "faults_duplicate": 0, "faults_falsely_ok": 0}
