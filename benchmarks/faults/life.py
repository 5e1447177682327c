"""A manifest's life: the same command, given again until it ends normally, and then the audit."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.audit import Expected, Identity, Problem, audit
from benchmarks.faults.fault import DIRECTORY_VARIABLE, Fault, FaultDirectory
from benchmarks.faults.lab import ROOT, Lab
from benchmarks.faults.mutations import VARIABLE as MUTATION_VARIABLE
from benchmarks.faults.outputs import Output
from benchmarks.faults.processes import is_alive, kill, processes_of, wait_until

_SILENCE_S = 600.0  # generous: a busy machine takes minutes for what an idle one does in seconds
_ENDING_S = 60.0
_SPARE_RUNS = 3  # beyond one per fault
_LOG_TAIL_LINES = 12
NORMAL = frozenset({0, 1})


@dataclass
class Result:
    """What a scenario did and found."""

    scenario: str
    injected: list[Fault] = field(default_factory=list)
    missed: list[Fault] = field(default_factory=list)  # planned, but its moment never came
    problems: list[Problem] = field(default_factory=list)
    runs: int = 0
    wall_s: float = 0.0


@dataclass
class Life:
    """One output with its manifest and the faults that it will meet.

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

    def __post_init__(self) -> None:
        self.directory = FaultDirectory(self.lab.folder / "lives" / self.name)
        self.directory.create(self.faults)

    def run_once(self) -> int | None:
        """Gives the command once; its exit code, or None if it had to be ended."""
        environment = self.lab.environment | self.environment
        environment |= {DIRECTORY_VARIABLE: str(self.directory.path)}
        if self.lab.mutation:
            environment |= {MUTATION_VARIABLE: self.lab.mutation}
        command = [sys.executable, "-m", "benchmarks.faults.render", *self.arguments]
        with self._log(len(self.codes)).open("wb") as log:
            process = subprocess.Popen(
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
                self.end_processes()
                raise
        self.codes.append(code)
        return code

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code; None for a run that had to be ended, since it printed and did nothing for long."""
        seen = None
        while True:
            try:
                return process.wait(_SILENCE_S)
            except subprocess.TimeoutExpired:
                shown = self.directory.events_size(), self._log(len(self.codes)).stat().st_size
                if shown == seen:
                    process.kill()
                    process.wait()
                    return None
                seen = shown

    def run_until_done(
        self, normal: frozenset[int] = NORMAL, between: Callable[[], None] | None = None
    ) -> None:
        """Gives the command until it ends normally.

        Args:
            between: called after each run that did not.
        """
        for _ in range(len(self.faults) + _SPARE_RUNS):
            if self.run_once() in normal:
                return
            if between is not None:
                between()

    def result(self, started: float) -> Result:
        """Counts the faults and audits the output, which must be in reach without any of them."""
        ended = self.end_processes()
        fired = self.directory.fired()
        found = Result(
            self.name,
            injected=[fault for fault in self.faults if fault.id in fired],
            missed=[fault for fault in self.faults if fault.id not in fired],
            runs=len(self.codes),
            wall_s=time.monotonic() - started,
        )
        if not ended:
            found.problems.append(Problem("wrong", None, f"processes were left behind after {_ENDING_S:g} s"))
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
                        f"run {index} did nothing for {_SILENCE_S:g} s:\n{self.log_tail(index)}",
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

        def remaining() -> list[int]:
            found = processes_of(DIRECTORY_VARIABLE, str(self.directory.path))
            return [pid for pid in found if is_alive(pid)]

        if wait_until(lambda: not remaining(), _ENDING_S):
            return True
        for pid in remaining():
            kill(pid)
        return False


def local_arguments(lab: Lab, manifest: str, output: Output, *flags: str) -> list[str]:
    """The command line of a run on local files."""
    paths = ("--manifest", str(lab.base / manifest), "--model", str(lab.model), "--output", output.uri)
    return [*paths, *flags]
