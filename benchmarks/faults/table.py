"""What came of all faults, as a table for people and as figures."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.faults.audit import Problem
from benchmarks.faults.life import Result
from benchmarks.figures import Figure

_COLUMNS = ("kind", "injected", "recovered", "lost", "duplicate", "falsely ok", "otherwise wrong")
_OTHERS = "(no single kind)"


def table(results: Sequence[Result], kinds: Sequence[str]) -> str:
    """One line per kind. A broken promise counts for the kinds that its row met, else for none of them.

    A fault is recovered if its scenario came to its end and nothing is wrong with the row that it met.
    """
    injected = Counter(fault.kind for result in results for fault in result.injected)
    recovered: Counter[str] = Counter()
    broken: dict[str, Counter[str]] = {}
    for result in results:
        spoiled = {problem.row_id for problem in result.problems}
        for fault in result.injected:
            recovered[fault.kind] += None not in spoiled and (
                fault.row_id is None or fault.row_id not in spoiled
            )
        for problem in result.problems:
            for kind in _kinds_of(problem, result):
                broken.setdefault(kind, Counter())[problem.promise] += 1
    names = [*kinds, *([_OTHERS] if _OTHERS in broken else [])]
    rows = [
        [kind, injected[kind], recovered[kind], *(broken.get(kind, Counter())[p] for p in _PROMISES)]
        for kind in names
    ]
    rows.append(
        ["all", sum(injected.values()), sum(recovered.values()), *(_total(results, p) for p in _PROMISES)]
    )
    widths = [max(len(str(row[i])) for row in [_COLUMNS, *rows]) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            str(cell).ljust(w) if i == 0 else str(cell).rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [_COLUMNS, *rows]
    )


def figures(results: Sequence[Result]) -> list[Figure]:
    """The suite's figures; each counts over everything that was run."""
    injected = sum(len(result.injected) for result in results)
    values = {"injected": injected} | {
        name: _total(results, name) for name in ("lost", "duplicate", "falsely_ok")
    }
    return [
        Figure(f"faults_{name}", value, "faults" if name == "injected" else "rows", 1, (value, value))
        for name, value in values.items()
    ]


_PROMISES = ("lost", "duplicate", "falsely_ok", "wrong")


def _total(results: Sequence[Result], promise: str) -> int:
    return sum(problem.promise == promise for result in results for problem in result.problems)


def _kinds_of(problem: Problem, result: Result) -> set[str]:
    met = {fault.kind for fault in result.injected if problem.row_id and fault.row_id == problem.row_id}
    return met or {_OTHERS}
