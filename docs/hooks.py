"""What the built documentation adds to its pages: mkdocs calls `on_page_markdown` for every one.

A page asks for a table that comes from the code with `<!-- table: NAME -->`, NAME as in `tables`;
`<!-- table: config jobs.NAME -->` for one job. `<!-- needs: a cluster -->` above a block of commands, which the tests
then do not run, becomes a line that readers see.
"""

import importlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import BaseModel

import jobs._train
from actors import metrics
from jobs._flags import Flag, allowed_values, flags_of
from schemas.manifest import META_PREFIX
from schemas.manifest_row import ManifestRow
from schemas.run import RenderRun

_TABLE = re.compile(r"<!-- table: (\S+)(?: (\S+))? -->")
_NEEDS = re.compile(r"^<!-- needs: ([^>]+) -->$", re.M)
_ADR = Path(__file__).parent / "adr"
_JOBS = Path(jobs._train.__file__).parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables in it, and what its commands need in words."""
    shown = _NEEDS.sub(r"*Needs \1; the tests do not run this.*\n", markdown)
    return _TABLE.sub(lambda found: tables[found[1]](*filter(None, [found[2]])), shown)


def job_names() -> list[str]:
    """jobs.NAME of every job."""
    return [f"jobs.{path.stem}" for path in sorted(_JOBS.glob("[a-z]*.py"))]


class _Asked(Exception):  # noqa: N818 - it is no error
    """Carries what a job wanted to load."""


@cache
def config_of(job: str) -> type[BaseModel]:
    """The config model that a job loads from its command line."""
    module = importlib.import_module(job)
    holder = module if hasattr(module, "load_config") else jobs._train

    def asked(model: type[BaseModel], *_: Any, **__: Any) -> None:
        raise _Asked(model)

    with patch.object(holder, "load_config", asked):
        try:
            module.main()
        except _Asked as found:
            return found.args[0]
    raise AssertionError(f"{job} loads no config")


def _manifest_table() -> str:
    properties = ManifestRow.model_json_schema()["properties"]
    rows = []
    for name, field in ManifestRow.model_fields.items():
        if name == META_PREFIX.rstrip("_"):
            continue
        schema = next((s for s in properties[name].get("anyOf", []) if s["type"] != "null"), properties[name])
        # What a row and a run can both set is described once, in the run's config.
        described = field.description or RenderRun.model_fields[name].description
        of_items = schema.get("type") == "array"
        allowed = allowed_values(schema["items"] if of_items else schema) or "text"
        if of_items:
            allowed = f"up to {schema['maxItems']}, each {allowed}"
        rows.append([f"`{name}`" + (" (required)" if field.is_required() else ""), described, allowed])
    rows.append([f"`{META_PREFIX}*`", "any columns of your own; carried into the records as JSON", "any"])
    return _table(["column", "what it says", "values"], rows)


def _config_table(job: str) -> str:
    rows: list[list[str | None]] = []
    for flag in flags_of(config_of(job)):
        rows.append([f"`{flag.option}`", flag.description, flag.allowed or "text", _default(flag)])
    return _table(["flag", "what it says", "values", "default"], rows)


def _config_tables() -> str:
    sections = []
    for job in job_names():
        first_line = (importlib.import_module(job).__doc__ or "").split("\n\n")[0]
        sections.append(f"## {job}\n\n{first_line}\n\n{_config_table(job)}")
    return "\n\n".join(sections)


def _metrics_table() -> str:
    rows = []
    for metric in metrics.METRICS:
        labels = ", ".join(f"`{key}`" for key in metric.info["tag_keys"])
        kind = type(metric).__name__.lower()
        rows.append([f"`ray_{metric.info['name']}`", kind, labels, metric.info["description"]])
    return _table(["metric", "kind", "labels", "what it counts"], rows)


def _default(flag: Flag) -> str:
    if flag.required:
        return "(required)"
    if isinstance(flag.default, bool):
        return "on" if flag.default else "off"
    shown = " ".join(map(str, flag.default)) if isinstance(flag.default, tuple) else flag.default
    return "" if shown in (None, "") else f"`{shown}`"


def _table(head: list[str], rows: Iterable[list[str | None]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _decisions_table() -> str:
    lines = [
        (path.name, path.read_text(encoding="utf-8").splitlines()[0]) for path in sorted(_ADR.glob("*.md"))
    ]
    return "\n".join(f"- [{title.removeprefix('# ')}](adr/{name})" for name, title in lines)


tables = {
    "decisions": _decisions_table,
    "manifest": _manifest_table,
    "config": _config_table,
    "configs": _config_tables,
    "metrics": _metrics_table,
}
