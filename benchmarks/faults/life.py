"""A manifest's life: the same command, given again until it ends normally, and then the audit."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.faults.audit import Expected, Identity, Problem, audit
from benchmarks.faults.fault import DIRECTORY_VARIABLE, STACKS_SIGNAL, Fault, FaultDirectory
from benchmarks.faults.lab import ROOT, Lab
from benchmarks.faults.mutations import VARIABLE as MUTATION_VARIABLE
from benchmarks.faults.outputs import Output
from benchmarks.faults.processes import OwnTime, is_alive, kill, processes_of, wait_until
from benchmarks.faults.result import Result

_SILENCE_S = 300.0  # in which a run does nothing though it could (see `OwnTime`)
_LOOK_EVERY_S = 20.0
_ENDING_S = 60.0  # in which none of the processes that are to end does
_STACKS_S = 3.0
_SPARE_RUNS = 3  # beyond one per fault
_LOG_TAIL_LINES = 12
NORMAL = frozenset({0, 1})


@dataclass
class Life:
    """One output with its manifest and the faults that it will meet.

    A life of the same name that was stopped in the midst of a run goes on.

    Args:
        may_break: infrastructure fails too, so that a run may end with 3.
    """

    lab: Lab
    name: str
    output: Output
    arguments: Sequence[str]  # of jobs.render
    expected: Mapping[Identity, Expected]
    faults: Sequence[Fault] = ()
    environment: dict[str, str] = field(default_factory=dict)
    may_break: bool = False
    codes: list[int | None] = field(default_factory=list)  # of every run so far; None: it did not end
    _process: subprocess.Popen[bytes] | None = None
    _abandoned: bool = False

    def __post_init__(self) -> None:
        self.directory = FaultDirectory(self.lab.folder / "lives" / self.name)
        self._runs_file = self.directory.path / "runs.json"
        self._started, self._earlier_s = time.monotonic(), 0.0
        if self._runs_file.exists():
            self.codes, self._earlier_s = json.loads(self._runs_file.read_text())
        else:
            self.directory.create(self.faults)
            self._save()

    def run_once(self) -> int | None:
        """Gives the command once; its exit code, or None if it had to be ended."""
        environment = self.lab.environment | self.environment
        environment |= {DIRECTORY_VARIABLE: str(self.directory.path)}
        if self.lab.mutation:
            environment |= {MUTATION_VARIABLE: self.lab.mutation}
        command = [sys.executable, "-m", "benchmarks.faults.render", *self.arguments]
        with self._log(len(self.codes)).open("wb") as log:
            process = self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = self._wait(process)
            except BaseException:
                process.kill()
                self.codes.append(process.wait())
                self._kill_processes()
                self._save()
                raise
        self.codes.append(code)
        self._save()
        return code

    def _save(self) -> None:
        self._runs_file.write_text(json.dumps([self.codes, self._wall_s()]))

    def _wall_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code; None for a run that had to be ended, since it printed and did nothing for long."""
        seen, clock = None, OwnTime(self._processes)
        while True:
            try:
                return process.wait(_LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                shown = self.directory.events_size(), self._log(len(self.codes)).stat().st_size
                if shown != seen:
                    seen, clock = shown, OwnTime(self._processes)
                elif clock.passed_s() > _SILENCE_S:
                    process.send_signal(STACKS_SIGNAL)  # into its log
                    time.sleep(_STACKS_S)
                    process.kill()
                    process.wait()
                    return None

    def abandon(self) -> None:
        """Ends the run of another thread, and lets it begin no other: the suite itself was stopped."""
        self._abandoned = True
        if self._process is not None:
            self._process.kill()

    def run_until_done(
        self, normal: frozenset[int] = NORMAL, between: Callable[[], None] | None = None
    ) -> None:
        """Gives the command until it ends normally.

        Args:
            between: called after each run that did not.
        """
        for _ in range(len(self.faults) + _SPARE_RUNS):
            if self.run_once() in normal or self._abandoned:
                return
            if between is not None:
                between()

    def result(self) -> Result:
        """Counts the faults and audits the output, which must be in reach without any of them."""
        ended = self.end_processes()
        fired = self.directory.fired()
        found = Result(
            self.name,
            injected=[fault for fault in self.faults if fault.id in fired],
            missed=[fault for fault in self.faults if fault.id not in fired],
            runs=len(self.codes),
            wall_s=self._wall_s(),
        )
        if not ended:
            found.problems.append(
                Problem("wrong", None, f"processes were left behind, none ended in {_ENDING_S:g} s")
            )
        found.problems += self._code_problems()
        found.problems += audit(self.output, self.expected, self.directory.events())
        found.problems += self._reconciliation()
        return found

    def _reconciliation(self) -> list[Problem]:
        """The product's own proof must not find what the audit does not."""
        command = [sys.executable, "-m", "jobs.reconcile", "--output", self.output.uri]
        environment = self.lab.environment | self.environment
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return []
        what = f"jobs.reconcile ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return [Problem("wrong", None, what)]

    def _code_problems(self) -> list[Problem]:
        problems = []
        for index, code in enumerate(self.codes):
            if code is None:
                problems.append(
                    Problem(
                        "wrong",
                        None,
                        f"run {index} did nothing for {_SILENCE_S:g} s, its stacks are in {self._log(index)}",
                    )
                )
            elif code in {2, 70} or (code == 3 and not self._may_break(index)):
                problems.append(
                    Problem("wrong", None, f"run {index} ended with {code}:\n{self.log_tail(index)}")
                )
        if not self.codes or self.codes[-1] not in NORMAL:
            problems.append(Problem("wrong", None, f"it never ended normally: {self.codes}"))
        return problems

    def _may_break(self, index: int) -> bool:
        return self.may_break or "Ray does not start" in self.log_tail(index)  # on a very busy machine

    def log_tail(self, index: int) -> str:
        """The end of what a run printed."""
        return "\n".join(self._log(index).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])

    def _log(self, index: int) -> Path:
        return self.directory.path / f"run-{index:02d}.log"

    def end_processes(self) -> bool:
        """Waits until nothing of the life runs any more; whether it ended by itself, or else is killed."""
        while count := len(self._processes()):
            if not wait_until(partial(self._has_fewer_than, count), _ENDING_S):
                self._kill_processes()
                return False
        return True

    def _kill_processes(self) -> None:
        for pid in self._processes():
            kill(pid)

    def _has_fewer_than(self, count: int) -> bool:
        return len(self._processes()) < count

    def _processes(self) -> list[int]:
        found = processes_of(DIRECTORY_VARIABLE, str(self.directory.path))
        return [pid for pid in found if is_alive(pid)]


def local_arguments(lab: Lab, manifest: str, output: Output, *flags: str) -> list[str]:
    """The command line of a run on local files."""
    paths = ("--manifest", str(lab.base / manifest), "--model", str(lab.model), "--output", output.uri)
    return [*paths, *flags]
