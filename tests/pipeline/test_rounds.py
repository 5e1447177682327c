"""One record per row, whatever happens to the processes: the driver's side, with processes that only pretend."""

import gc
import json
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from ray.exceptions import ActorDiedError

from actors.attempts import AttemptLog, OwnAttempts
from actors.commits import CommitStore
from actors.records import Provenance, finished_record
from actors.storage import Storage
from pipeline.rounds import Rounds, sweep_attempts
from schemas.planned import AssetRef, PlannedRow, results_table, unit_rows
from schemas.record import ErrorClass, Status
from schemas.run import InfrastructureError
from schemas.settings import RenderSettings


def row(number: int, **changes) -> PlannedRow:
    values = {
        "row_id": f"row-{number}",
        "sample_index": 0,
        "row_key": f"{number:032x}",
        "prompt": "p",
        "style_images": [AssetRef(uri="a.png", location="/a.png", version="v", size_bytes=1)],
        "seed": number,
        "settings": RenderSettings(),
    }
    return PlannedRow(**values | changes)


class World:
    """An output, and processes that render in it. What a row does to its process is said by name."""

    def __init__(self, output: Path, units: list[list[PlannedRow]], run_id: str = "run"):
        self.storage = Storage()
        self.output = output
        self.provenance = Provenance(run_id, "0.1", "f" * 64, False, "stylecrafter", "float32", 0)
        self.commits = CommitStore(self.storage, str(output))
        self.log = AttemptLog(self.storage, str(output))
        self.run = SimpleNamespace(output=str(output))
        self.units = lambda: iter(units)
        self.fates: dict[str, list[str]] = {}  # row_id -> what happens on each attempt; then all is well
        self.renders: Counter[str] = Counter()
        self.rounds: list[tuple[bool, int]] = []
        self.nodes = {"node-a"}
        self.lost_beside = 0  # units that wait in a process that dies

    def records(self) -> dict[str, dict]:
        found = list(Rounds(self, self.run_round, lambda: self.nodes).records())
        assert len({record["record_id"] for record in found}) == len(found)
        return {record["row_id"]: record for record in found}

    def run_round(self, a_round):
        self.rounds.append((a_round.alone, a_round.units))
        shared = {"run_id": "run", "session": "s", "node_id": "node-a", "alone": a_round.alone}
        table = pq.read_table(a_round.units_uri).to_pylist()
        skip = 0
        for unit in table:
            if skip:
                skip -= 1
                continue
            outcome = self.process(unit, OwnAttempts(self.log, a_round.begun, shared), a_round.alone)
            if outcome == "break":
                raise ActorDiedError
            if outcome is None:
                skip = self.lost_beside
                continue
            yield results_table([{"unit_id": unit["unit_id"], **outcome}]).to_pylist()[0]

    def process(self, unit, attempts, alone):
        rows = unit_rows(unit["rows"])
        fates = {r.row_id: (self.fates.get(r.row_id) or ["fine"]).pop(0) for r in rows}
        if "dies before" in fates.values() and not alone:
            return None
        attempts.begin(rows)
        self.renders.update(r.row_id for r in rows)
        records = [
            finished_record(r, self.provenance, attempts=attempts.count(r))
            for r in rows
            if fates[r.row_id] != "dies" or "commits" in fates.values()
        ]
        for r, fate in zip(rows, fates.values(), strict=True):
            if fate in {"commits and dies", "commits, clears and dies"}:
                self.commits.write(finished_record(r, self.provenance, attempts=attempts.count(r)))
            if fate == "commits, clears and dies":
                attempts.end(r)
        if "the store is down" in fates.values():
            return {"infrastructure_error": "the store is down"}
        if "a bug" in fates.values():
            return {"internal_error": "Traceback ... ZeroDivisionError"}
        if "the round breaks" in fates.values():
            return "break"
        if set(fates.values()) - {"fine"}:
            return None
        for record, r in zip(records, rows, strict=True):
            self.commits.write(record)
            attempts.end(r)
        return {"records": records}


@pytest.fixture
def world(tmp_path):
    def make(*units, **fates):
        made = World(tmp_path, [[row(number) for number in unit] for unit in units])
        made.fates = {name.replace("_", "-"): list(fate) for name, fate in fates.items()}
        return made

    return make


def markers(output: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(output.glob("attempts/*/*/*.json"))]


def test_without_deaths_there_is_one_round_and_no_marker_is_left(world, tmp_path):
    made = world([1, 2], [3])
    records = made.records()
    assert {name: record["attempts"] for name, record in records.items()} == {
        "row-1": 1,
        "row-2": 1,
        "row-3": 1,
    }
    assert made.rounds == [(False, 2)]
    assert markers(tmp_path) == []
    assert not list(tmp_path.glob("run/run/units-*/*"))


def test_a_row_that_kills_its_process_is_quarantined_after_three_deaths_alone(world, tmp_path):
    made = world([1, 2], [3], row_2=["dies"] * 9)
    records = made.records()
    assert [records[f"row-{n}"]["status"] for n in (1, 2, 3)] == ["ok", "quarantined", "ok"]
    assert records["row-2"]["error_class"] == ErrorClass.PROCESS_DIED
    assert "died 3 times" in records["row-2"]["error"]
    assert {name: record["attempts"] for name, record in records.items()} == {
        "row-1": 2,
        "row-2": 4,
        "row-3": 1,
    }
    assert made.commits.read(row(2).record_id)["status"] == Status.QUARANTINED
    assert [marker["row_id"] for marker in markers(tmp_path)] == ["row-2"] * 4  # the evidence
    assert [marker["alone"] for marker in markers(tmp_path)] == [False, True, True, True]


def test_a_death_beside_others_or_once_alone_costs_nothing_but_another_attempt(world):
    made = world([1, 2], row_1=["dies", "dies", "dies"])
    records = made.records()
    assert {record["status"] for record in records.values()} == {"ok"}
    assert records["row-1"]["attempts"] == 4
    assert records["row-2"]["attempts"] == 2


def test_units_that_waited_in_a_dead_process_are_no_suspects(world):
    made = world([1], [2], [3], row_1=["dies"])
    made.lost_beside = 1
    records = made.records()
    assert made.rounds == [(False, 3), (False, 1), (True, 1)]
    assert {name: record["attempts"] for name, record in records.items()} == {
        "row-1": 2,
        "row-2": 1,
        "row-3": 1,
    }


@pytest.mark.parametrize("fate", ["commits and dies", "commits, clears and dies"])
def test_a_row_that_was_committed_before_its_process_died_is_done(world, fate, tmp_path):
    made = world([1], row_1=[fate])
    if (
        fate == "commits, clears and dies"
    ):  # then the actor of the next round finds the commit, see its own test
        made.fates["row-1"].append("fine")
    assert made.records()["row-1"]["status"] == "ok"
    assert markers(tmp_path) == []


def test_deaths_with_the_node_have_a_cap_of_their_own(world):
    made = world([1], row_1=["dies"] * 9)
    made.nodes = {"node-b"}
    record = made.records()["row-1"]
    assert (record["error_class"], record["attempts"]) == (ErrorClass.NODE_DIED, 5)


def test_why_a_process_ended_itself_is_the_quarantined_rows_error(world):
    made = world([1], row_1=["dies"] * 9)
    write = made.log.write
    made.log.write = lambda marker: write(
        {**marker, "error_class": "render_timeout", "error": "took too long"}
    )
    record = made.records()["row-1"]
    assert record["error_class"] == ErrorClass.RENDER_TIMEOUT
    assert "took too long" in record["error"]


def test_attempts_of_a_run_that_was_killed_count_as_attempts_but_not_as_deaths(world):
    made = world([1], row_1=["dies", "dies"])
    OwnAttempts(made.log, {}, {}).begin([row(1)])
    record = made.records()["row-1"]
    assert (record["status"], record["attempts"]) == ("ok", 4)


def test_a_row_that_was_begun_twice_for_nothing_comes_last_and_alone(world):
    made = world([1, 2], [3])
    OwnAttempts(made.log, {row(1).record_id: 1}, {}).begin([row(1)])
    made.records()
    assert made.rounds == [(False, 2), (True, 1)]


def test_attempts_at_another_prompt_are_forgotten(world, tmp_path):
    made = world([1])
    OwnAttempts(made.log, {}, {}).begin([row(1, row_key="e" * 32)])
    assert made.records()["row-1"]["attempts"] == 1
    assert markers(tmp_path) == []


def test_a_process_that_dies_before_it_begins_a_row_is_found_out_alone(world):
    made = world([1, 2], [3], row_2=["dies before", "dies before", "dies", "dies", "dies"])
    records = made.records()
    assert [records[f"row-{n}"]["status"] for n in (1, 2, 3)] == ["ok", "quarantined", "ok"]


def test_a_store_that_is_down_ends_the_run(world):
    with pytest.raises(InfrastructureError, match="the store is down"):
        world([1], row_1=["the store is down"]).records()


def test_a_bug_in_an_actor_ends_the_run_as_one(world):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        world([1], row_1=["a bug"]).records()


def test_processes_that_only_die_end_the_run_instead_of_every_row(world):
    numbers = range(8)
    made = world(*([number] for number in numbers), **{f"row_{n}": ["the round breaks"] * 9 for n in numbers})
    with pytest.raises(InfrastructureError, match="before they finish a single row"):
        made.records()
    assert made.renders.total() == 3


def test_a_broken_round_goes_on_with_the_rest(world):
    made = world([1], [2], [3], row_2=["the round breaks"])
    assert {record["status"] for record in made.records().values()} == {"ok"}
    assert made.rounds == [(False, 3), (False, 1), (True, 1)]


def test_the_actors_of_a_broken_round_are_let_go_before_the_next_one_starts(world, monkeypatch):
    """Ray keeps, and starts again, an actor that anything refers to: it would hold the next one's CPUs."""
    made = world([1], [2], row_1=["the round breaks"])
    held = []

    class Actor:
        pass

    def run_round(a_round, carried_out=made.run_round):
        assert [actor() for actor in held] == [None] * len(held)
        actors = [Actor()]
        held.append(weakref.ref(actors[0]))
        actors.append(actors)  # as what an error's traceback holds: only the garbage collector finds it
        yield from carried_out(a_round)

    monkeypatch.setattr(made, "run_round", run_round)
    gc.disable()
    try:
        made.records()
    finally:
        gc.enable()
    assert len(held) == 3


def test_when_ray_has_ended_the_run_says_so(world):
    made = world([1], row_1=["dies"] * 9)
    made.nodes = set()
    with pytest.raises(InfrastructureError, match="Ray has ended"):
        made.records()


def test_markers_left_between_a_commit_and_its_end_are_swept_and_evidence_is_not(world, tmp_path):
    made = world([1], row_1=["dies"] * 9)
    made.records()
    OwnAttempts(made.log, {}, {}).begin([row(5)])
    made.commits.write(finished_record(row(5), made.provenance))
    sweep_attempts(made)
    assert {marker["row_id"] for marker in markers(tmp_path)} == {"row-1"}
