"""A round that was stopped goes on with what it has not done yet."""

from collections import Counter

import pytest

from benchmarks.faults import __main__ as suite
from benchmarks.faults.audit import Problem
from benchmarks.faults.fault import Fault
from benchmarks.faults.lab import Lab
from benchmarks.faults.life import Life
from benchmarks.faults.outputs import LocalOutput
from benchmarks.faults.result import Result
from benchmarks.faults.scenarios import SCENARIOS, Scenario


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path, 0, None, {}, {}, 5)


class Ran:
    """A scenario that only counts how often it runs."""

    def __init__(self):
        self.times = 0

    def __call__(self, lab, name, counts):
        self.times += 1
        folder = lab.folder / "out" / name
        folder.mkdir(parents=True)  # fails where an earlier try left something
        faults = [Fault(kind, kind) for kind in counts]
        return Result(name, faults[:1], faults[1:], [Problem("wrong", "r1", "why")], runs=2, wall_s=1.5)


def test_a_result_is_found_again_and_not_made_again(lab):
    run = Ran()
    scenario = Scenario("some", ("nan", "hang"), run)
    first = suite._result(lab, scenario, {"nan": 1, "hang": 1})
    assert suite._result(lab, scenario, {"nan": 1, "hang": 1}) == first
    assert run.times == 1


def test_a_scenario_with_fewer_kinds_is_another_one(lab):
    run = Ran()
    scenario = Scenario("some", ("nan", "hang"), run)
    suite._result(lab, scenario, {"nan": 1})
    suite._result(lab, scenario, {"nan": 1, "hang": 1})
    assert run.times == 2


def test_a_scenario_that_was_stopped_begins_anew_unless_it_can_go_on(lab):
    (lab.folder / "out" / "some").mkdir(parents=True)
    suite._result(lab, Scenario("some", ("nan",), Ran()), {"nan": 1})
    (lab.folder / "out" / "other").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        suite._result(lab, Scenario("other", ("nan",), Ran(), goes_on=True), {"nan": 1})


def test_a_life_that_was_stopped_goes_on(lab):
    fault = Fault("f", "nan")
    life = Life(lab, "some", LocalOutput(lab.folder), [], {}, [fault])
    life.codes.append(-9)
    life._save()
    life.directory.claim(fault)
    again = Life(lab, "some", LocalOutput(lab.folder), [], {}, [fault])
    assert again.codes == [-9]
    assert again.directory.fired() == {"f"}


def test_every_kind_belongs_to_one_scenario():
    assert set(Counter(suite.KINDS).values()) == {1}
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
