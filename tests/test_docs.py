"""The documentation holds: every command in it parses, the tables are complete, and the quick start was walked.

A shell block that cannot run on a laptop without weights says what it needs in the line above it:
`<!-- needs: cluster -->`. Its `python -m jobs.NAME` lines are checked all the same.
"""

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs._cli import load_config
from schemas.manifest_row import ManifestRow
from schemas.record import ErrorClass
from schemas.run import ExitCode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
_BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>[^>]+) -->\n+)?^```bash\n(?P<body>.*?)^```$", re.M | re.S)
_HERE_DOCUMENT = re.compile(r" ?<<'?(\w+)'?(?=.*$)(?s:.*?)^\1$", re.M)
_PYTHON = re.compile(r"(?:\.venv/bin/)?python")
_EVERYWHERE = {"git", "cd", ".", "mkdir", "printf", "cat", "export", "cp", ".venv/bin/pre-commit"}


class Block(NamedTuple):
    page: str
    needs: str | None
    lines: list[str]

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command, without comments and variables set for it."""
        for line in self.lines:
            for command in re.split(r" && | \| ", line):
                words = shlex.split(command, comments=True)
                while words and re.fullmatch(r"[A-Z][A-Za-z_]*=.*", words[0]):
                    words = words[1:]
                if words:
                    yield words


def blocks_of(page: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        body = _HERE_DOCUMENT.sub("", found["body"])
        lines = body.replace("\\\n", " ").splitlines()
        yield Block(page.name, found["needs"], lines)


BLOCKS = list(chain.from_iterable(map(blocks_of, PAGES)))


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem_of(words: list[str], hooks) -> str | None:
    """What is wrong with a command; None if nothing is, and "unknown" for what only a person can judge."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        return next(
            (f"no target {word}" for word in words[1:] if word not in targets and "=" not in word), None
        )
    if not _PYTHON.fullmatch(words[0]):
        return None if words[0] in _EVERYWHERE else "unknown"
    if words[1:2] != ["-m"]:
        return None
    module, arguments = words[2], words[3:]
    if importlib.util.find_spec(module) is None:
        return f"no module {module}"
    if module.startswith("jobs."):
        return job_problem(module, arguments, hooks)
    return None


def job_problem(job: str, arguments: list[str], hooks) -> str | None:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    after = arguments[len(own) + 1 :]
    if "--config" in own:  # the file is the reader's: what it may leave out is not known, but flags are
        at = own.index("--config")
        del own[at : at + 2]
        known = {flag.option for flag in hooks.flags_of(hooks.config_of(job))}
        known |= {option.replace("--", "--no-", 1) for option in known}
        return next(
            (f"no flag {w}" for w in own if w.startswith("--") and w.split("=")[0] not in known), None
        )
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            load_config(hooks.config_of(job), own, prog=job, description=None)
        except SystemExit as ended:
            return None if ended.code == 0 else said.getvalue()
    return job_problem(after[0], after[1:], hooks) if after else None


def test_there_are_commands():
    assert sum(len(list(block.commands)) for block in BLOCKS) > 50


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.lines[0][:60]}")
def test_every_command_parses_or_says_what_it_needs(block, hooks):
    for words in block.commands:
        problem = problem_of(words, hooks)
        if problem == "unknown":
            assert block.needs, (
                f"{block.page}: {' '.join(words)}: say what it needs in the line above the block"
            )
        else:
            assert problem is None, f"{block.page}: {' '.join(words)}: {problem}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("python -m jobs.render --manifest m --model m --output o --nmu-frames 4", "unknown flag"),
        ("python -m jobs.render --model m --output o", "--manifest is required"),
        ("python -m jobs.submit -- jobs.render --model m --output o", "--manifest is required"),
        ("python -m jobs.render --config run.yaml --nmu-frames 4", "no flag --nmu-frames"),
        ("python -m jobs.paint --output o", "no module"),
        ("make coffee", "no target"),
        ("kubectl apply -f x.yaml", "unknown"),
    ],
)
def test_a_wrong_command_is_found(line, problem, hooks):
    assert problem in problem_of(line.split(), hooks)


def test_every_job_and_every_manifest_column_is_described(hooks):
    page = hooks.on_page_markdown("<!-- table: configs -->")
    for job in hooks.job_names():
        assert f"## {job}\n" in page
    rows = hooks.on_page_markdown("<!-- table: manifest -->").splitlines()[2:]
    assert [row.split("`")[1] for row in rows[:-1]] == [n for n in ManifestRow.model_fields if n != "meta"]
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").split(" | ")), row


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("## Exit codes", {str(int(code)) for code in ExitCode}),
        ("## What a failed row says", {f"`{name}`" for name in ErrorClass}),
    ],
)
def test_troubleshooting_says_what_to_do_about_each(heading, expected):
    section = (DOCS / "troubleshooting.md").read_text().split(heading)[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| ([^|]+?) \|", section, re.M)[2:]
    assert len(first_cells) == len(set(first_cells))
    assert set(first_cells) == expected


@pytest.mark.slow
def test_the_quick_start_works_in_an_empty_folder(tmp_path):
    from examples.demo import write_styles

    write_styles(
        tmp_path / "outputs" / "demo" / "styles"
    )  # what `make demo` leaves; it has a test of its own
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    for block in blocks_of(DOCS / "quick-start.md"):
        if not block.needs:
            script = "set -e\n" + "\n".join(block.lines)
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block.lines}\n{done.stdout}\n{done.stderr}"
    run = tmp_path / "outputs" / "quick" / "run"
    assert (run / "_SUCCESS").exists()
    assert (run / "run" / "report.html").exists()
    assert len(list(run.rglob("videos/**/*.mp4"))) == 2
