"""From work units to one record per row, whatever happens to the processes that render them.

Units go through the actors in rounds. A unit whose process dies is lost and the others go on. After the round, the
rows of lost units that left a marker were in the hands of a process when it died: one of them may have killed it.
They are tried again alone, last, until they are done or quarantined. The other rows go into the next round.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from actors.attempts import AttemptLog, Marker
from actors.records import Record, failed_record
from actors.storage import join
from pipeline.deaths import Deaths
from pipeline.failures import named_cause
from pipeline.prepare import PreparedRun
from pipeline.units import write_units
from schemas.planned import PlannedRow, unit_rows
from schemas.record import Status
from schemas.run import InfrastructureError

logger = logging.getLogger(__name__)

_SUSPECT_FROM = 2  # attempts, in earlier runs, that nothing came of
_MAX_IDLE = 3
Unit = list[PlannedRow]


@dataclass(frozen=True)
class Round:
    """Units that go through the actors together."""

    number: int  # from 1
    units_uri: str  # a folder of Parquet files of UNIT_SCHEMA
    units: int
    alone: bool  # units of one row; a process has one of them at a time and nothing else
    begun: Mapping[str, int]  # record_id -> attempts so far, of rows that have any


@dataclass
class _Outcome:
    finished: set[int] = field(default_factory=set)  # unit ids
    records: int = 0
    deaths: int = 0
    left: int = 0  # rows that the run's time was over for
    broken: str = ""  # what Ray said when it gave the round up


class Rounds:
    """Carries out the units of a prepared run.

    Args:
        run_round: puts a round's units through the actors and yields their outcomes (rows of RESULT_SCHEMA).
        living_nodes: the ids of the cluster's nodes that are alive.
    """

    def __init__(
        self,
        prepared: PreparedRun,
        run_round: Callable[[Round], Iterator[dict[str, Any]]],
        living_nodes: Callable[[], set[str]],
    ):
        self._prepared = prepared
        self._storage = prepared.storage
        self._run_round = run_round
        self._living_nodes = living_nodes
        self._log = AttemptLog(prepared.storage, prepared.run.output)
        self._begun = self._log.counts()
        self._deaths = Deaths()
        self._suspects: list[PlannedRow] = []
        self._last_marker: Marker = {}
        self._written_units: list[str] = []
        self._idle = 0

    def records(self) -> Iterator[Record]:
        """One record for each row, as they are committed.

        Raises:
            InfrastructureError: an actor cannot go on for reasons that are no row's own, or processes die and die.
        """
        try:
            following = self._written(self._unsuspected(self._prepared.units()))
            while a_round := following or self._written(self._taken_suspects(), alone=True):
                outcome, settled = _Outcome(), list[Record]()
                yield from self._carried_out(a_round, outcome)
                _let_actors_end()
                if outcome.left:
                    return
                following = self._written(self._rest(a_round, outcome, settled))
                yield from settled
                self._check_progress(outcome)
                if following and not outcome.records and not outcome.deaths:
                    # Its processes died before they began a row: alone, a row is marked before anything else.
                    rows = ([row] for unit in self._read(following) for row in unit)
                    following = self._written(rows, alone=True)
        finally:
            for folder in self._written_units:  # may hold presigned URLs, and have served
                for stat in self._storage.list(folder):
                    self._storage.delete(stat.uri)

    def _unsuspected(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """The units without rows that, in earlier runs, were begun time and again and never finished."""
        for unit in units:
            suspects = [row for row in unit if self._attempts_before(row) >= _SUSPECT_FROM]
            self._suspects += suspects
            yield [row for row in unit if row not in suspects]

    def _attempts_before(self, row: PlannedRow) -> int:
        attempts = self._begun.get(row.record_id, 0)
        if attempts and (self._log.read(row.record_id, attempts) or {}).get("row_key") != row.row_key:
            self._log.clear(row.record_id, attempts)  # they were of another prompt or setting
            del self._begun[row.record_id]
        return self._begun.get(row.record_id, 0)

    def _taken_suspects(self) -> list[Unit]:
        suspects, self._suspects = self._suspects, []
        return [[row] for row in suspects]

    def _written(self, units: Iterable[Unit], *, alone: bool = False) -> Round | None:
        """A round of these units, empty ones left out; None if nothing is left."""
        count = 0

        def counted() -> Iterator[Unit]:
            nonlocal count
            for unit in filter(None, units):
                count += 1
                yield unit

        run_dir = join(self._prepared.run.output, "run", self._prepared.provenance.run_id)
        number = len(self._written_units) + 1
        uri = write_units(self._storage, run_dir, counted(), f"units-{number}")
        self._written_units.append(uri)
        return Round(number, uri, count, alone, dict(self._begun)) if count else None

    def _carried_out(self, a_round: Round, outcome: _Outcome) -> Iterator[Record]:
        try:
            for result in self._run_round(a_round):
                if result["infrastructure_error"] is not None:
                    raise InfrastructureError(result["infrastructure_error"])
                if result["internal_error"] is not None:
                    raise RuntimeError(f"in a render actor: {result['internal_error']}")
                outcome.finished.add(result["unit_id"])
                outcome.records += len(result["records"])
                outcome.left += result.get("left") or 0
                yield from result["records"]
        except (RayError, ExecutionTimeoutError) as error:
            if cause := named_cause(error):
                raise cause from error
            outcome.broken = str(error).strip().partition("\n")[0] or type(error).__name__
            logger.warning(
                "Ray gave up round %d, its rows go on in another: %s", a_round.number, outcome.broken
            )

    def _rest(self, a_round: Round, outcome: _Outcome, settled: list[Record]) -> Iterator[Unit]:
        """The rows of lost units that go into the next round; records of those that turn out done go to `settled`."""
        if len(outcome.finished) == a_round.units:
            return
        begun_now = self._log.counts()
        for unit in self._read(a_round, without=outcome.finished):
            rest: Unit = []
            for row in unit:
                if begun_now.get(row.record_id, 0) <= self._begun.get(row.record_id, 0):
                    (self._suspects if a_round.alone else rest).append(row)
                elif record := self._settled(row, begun_now[row.record_id], a_round, outcome):
                    outcome.records += 1
                    settled.append(record)
            yield rest

    def _settled(self, row: PlannedRow, attempt: int, a_round: Round, outcome: _Outcome) -> Record | None:
        """The record of a row that left a marker: committed before its process died, or quarantined now."""
        self._begun[row.record_id] = attempt
        provenance, commits = self._prepared.provenance, self._prepared.commits
        if commit := commits.read_of_run(row.record_id, row.row_key, provenance.run_id):
            self._log.clear(row.record_id, attempt)
            return commit
        marker = self._log.read(row.record_id, attempt) or {"record_id": row.record_id, "attempt": attempt}
        self._last_marker = marker
        outcome.deaths += 1
        node_lives = marker.get("node_id", "") in {"", *self._living()}
        error = self._deaths.count(marker, alone=a_round.alone, node_lives=node_lives)
        if error is None:
            self._suspects.append(row)
            return None
        place = {"attempts": attempt, "node": marker.get("node")}
        record = failed_record(row, provenance, error, **place)
        commits.write(record)  # its markers stay, as evidence
        return record

    def _living(self) -> set[str]:
        if not (nodes := self._living_nodes()):
            raise InfrastructureError(
                "Ray has ended; what is finished is kept, and the same command continues"
            )
        return nodes

    def _check_progress(self, outcome: _Outcome) -> None:
        """Ends a run whose processes do nothing but die: then it is not the rows."""
        if outcome.records or (outcome.deaths and not outcome.broken):
            self._idle = 0
            return
        self._living()
        self._idle += 1
        if self._idle >= _MAX_IDLE:
            why = self._last_marker.get("error") or outcome.broken or "they say nothing before they end"
            raise InfrastructureError(f"the render processes end before they finish a single row: {why}")

    def _read(self, a_round: Round, without: set[int] | None = None) -> Iterator[Unit]:
        for stat in self._storage.list(a_round.units_uri):
            with self._storage.open(stat.uri) as file:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=1_000):
                    for unit in batch.to_pylist():
                        if unit["unit_id"] not in (without or ()):
                            yield unit_rows(unit["rows"])


def _let_actors_end() -> None:
    """Ends what is left of a round's actors, so that those of the next one find free CPUs and GPUs.

    Ray ends an actor when nobody refers to it any more. After a failure the tracebacks still do, in cycles that wait
    for the garbage collector; until then Ray would even start such an actor again wherever there is room.
    """
    gc.collect()


def sweep_attempts(prepared: PreparedRun) -> None:
    """Removes markers that a process left between a commit and its last act; those of quarantined rows stay."""
    log = AttemptLog(prepared.storage, prepared.run.output)
    left = log.counts()
    for record_id, commit in zip(left, prepared.commits.try_many(left), strict=True):
        if isinstance(commit, dict) and commit["status"] != Status.QUARANTINED:
            log.clear(record_id, left[record_id])
