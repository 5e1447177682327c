"""Imports run one way: jobs -> pipeline -> actors -> {stylecrafter, schemas}; the last two know neither us nor Ray."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "stylecrafter": set[str](),
    "schemas": set[str](),
    "actors": {"stylecrafter", "schemas"},
    "pipeline": {"actors", "stylecrafter", "schemas"},
    "jobs": {"pipeline", "actors", "stylecrafter", "schemas"},
}
WITHOUT_RAY = {"stylecrafter", "schemas"}
OUTSIDE = {"examples", "benchmarks", "tests"}  # they may import everything, and nothing of ours imports them


def imported_roots(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, top-level module) of every import in a file, at any depth, and of import_module("literal")."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value).split(".")[0]


def broken_rules(source: str, package: str) -> list[str]:
    """What a file of a package imports that it must not."""
    forbidden = (set(MAY_IMPORT) | OUTSIDE) - MAY_IMPORT[package] - {package}
    if package in WITHOUT_RAY:
        forbidden |= {"ray"}
    return [f"line {line}: {name}" for line, name in imported_roots(source, package) if name in forbidden]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    broken = {
        str(file.relative_to(ROOT)): problems
        for file in files
        if (problems := broken_rules(file.read_text(encoding="utf-8"), package))
    }
    assert broken == {}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("schemas", "import ray.data"),
        ("stylecrafter", "def f():\n    from schemas.run import RenderRun"),
        ("actors", "from pipeline import render"),
        ("pipeline", "import importlib\nimportlib.import_module('jobs.render')"),
        ("jobs", "from tests.helpers import x"),
    ],
)
def test_a_breach_would_be_seen(package: str, source: str) -> None:
    assert len(broken_rules(source, package)) == 1


def test_what_is_allowed_is_not_a_breach() -> None:
    source = (
        "import ray, torch\nfrom actors.storage import Storage\nfrom . import plan\nfrom schemas import run"
    )
    assert broken_rules(source, "pipeline") == []
