"""The documentation holds: every command in it parses, and the tables are complete.

A shell block that cannot run on a laptop without weights says what it needs in the line above it,
`<!-- needs: cluster -->`, which the built page shows; or a line of it does, in a comment. All others are run
(test_docs_commands.py). `python -m jobs.NAME` lines are checked all the same.
"""

import contextlib
import importlib.util
import io
import re

import pytest

from jobs._cli import load_config
from schemas.manifest_row import ManifestRow
from schemas.record import ErrorClass
from schemas.run import ExitCode
from tests.support.docs import BLOCKS, DOCS, ROOT

_PYTHON = re.compile(r"(?:\.venv/bin/)?python")
_EVERYWHERE = {"git", "cd", ".", "mkdir", "printf", "cat", "export", "cp", ".venv/bin/pre-commit"}


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


def test_readers_see_what_commands_need(hooks):
    page = "Text.\n\n<!-- needs: a cluster on AWS -->\n```bash\nray up cluster.yaml\n```\n"
    assert "\n\n*Needs a cluster on AWS; the tests do not run this.*\n\n```bash" in hooks.on_page_markdown(
        page
    )


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
