"""docs/reliability.md names only tests and kinds of faults that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^ *def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_kind_of_fault_holds_a_promise():
    kinds = set()
    for file in (ROOT / "benchmarks" / "faults").rglob("*.py"):
        if found := re.search(r"^KINDS = \((.*?)\)", file.read_text(), re.MULTILINE | re.DOTALL):
            kinds |= set(re.findall(r'"(\w+)"', found[1]))
    assert len(kinds) >= 20
    promised = {
        kind for line in TEXT.splitlines() if "suite:" in line for kind in re.findall(r"`(\w+)`", line)
    }
    assert kinds - promised == set()
