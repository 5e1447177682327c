"""What came of all faults, as a table for people and as figures."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.faults.audit import Problem
from benchmarks.faults.fault import Fault
from benchmarks.faults.result import Result
from benchmarks.figures import Figure

_COLUMNS = ("kind", "injected", "recovered", "lost", "duplicate", "falsely ok", "otherwise wrong")
_PROMISES = ("lost", "duplicate", "falsely_ok", "wrong")
_OTHERS = "(no single kind)"


def table(results: Sequence[Result], kinds: Sequence[str]) -> str:
    """One line per kind. A broken promise counts for the kinds of faults that its row met, else for none of them."""
    injected = Counter(fault.kind for result in results for fault in result.injected)
    recovered = Counter(
        fault.kind for result in results for fault in result.injected if _recovered(fault, result)
    )
    broken: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for result in results:
        for problem in _distinct(result):
            for kind in _kinds_of(problem, result):
                broken.setdefault(kind, Counter())[problem.promise] += 1
    lines = [
        [kind, injected[kind], recovered[kind], *(counts[promise] for promise in _PROMISES)]
        for kind, counts in broken.items()
    ]
    totals = [_total(results, promise) for promise in _PROMISES]
    lines.append(["all", injected.total(), recovered.total(), *totals])
    return _aligned([_COLUMNS, *lines])


def figures(results: Sequence[Result]) -> list[Figure]:
    """The suite's figures; each counts over everything that was run."""
    injected = sum(len(result.injected) for result in results)
    rows = {f"faults_{name}": _total(results, name) for name in ("lost", "duplicate", "falsely_ok")}
    return [
        Figure("faults_injected", injected, "faults", 1, (injected, injected)),
        *(Figure(name, count, "rows", 1, (count, count)) for name, count in rows.items()),
    ]


def _recovered(fault: Fault, result: Result) -> bool:
    """Nothing is wrong with the output as a whole, nor with the row that the fault met."""
    spoiled = {problem.row_id for problem in result.problems}
    return None not in spoiled and (fault.row_id is None or fault.row_id not in spoiled)


def _distinct(result: Result) -> list[Problem]:
    """A row counts once for each promise, however many things show that it is broken."""
    return list(
        {(problem.promise, problem.row_id or problem.what): problem for problem in result.problems}.values()
    )


def _total(results: Sequence[Result], promise: str) -> int:
    return sum(problem.promise == promise for result in results for problem in _distinct(result))


def _kinds_of(problem: Problem, result: Result) -> set[str]:
    met = {fault.kind for fault in result.injected if problem.row_id and fault.row_id == problem.row_id}
    return met or {_OTHERS}


def _aligned(lines: Sequence[Sequence[object]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [
                str(line[0]).ljust(widths[0]),
                *(str(c).rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    )
