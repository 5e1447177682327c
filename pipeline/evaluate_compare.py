"""Two evaluated outputs, row by row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, Storage, join
from pipeline.evaluate import METRICS
from pipeline.evaluate_statistics import Difference, paired_difference
from pipeline.finished import open_output
from schemas.run import UsageError


@dataclass(frozen=True)
class Comparison:
    """The second output minus the first, over the rows that both have."""

    first: str
    second: str
    rows: int
    only_in_one: int  # rows that have no partner
    models: str
    differences: dict[str, Difference]


def compare(storage: Storage, first: str, second: str, resamples: int) -> Comparison:
    """Differences of every metric that both evaluations have.

    Raises:
        UsageError: one was not evaluated, other networks looked, or no row is in both.
    """
    rows = [{row["record_id"]: row for row in _rows(storage, uri)} for uri in (first, second)]
    models = [{row["models"] for row in found.values()} for found in rows]
    if models[0] != models[1]:
        raise UsageError(
            f"--compare: other networks looked at {first} ({_said(models[0])}) than at {second} ({_said(models[1])}); "
            "evaluate both with the same --clip, --dino and --flow"
        )
    shared = [key for key in rows[0] if key in rows[1] and _same(rows[0][key], rows[1][key])]
    if not shared:
        raise UsageError(f"--compare: {first} and {second} have no row with the same id, prompt and style")
    groups = [[rows[0][key][name] for key in shared] for name in ("prompt", "style")]
    differences = {}
    for name in METRICS:
        before, after = (np.array([found[key][name] for key in shared], dtype=float) for found in rows)
        difference = paired_difference(before, after, groups, resamples)
        if difference.difference.count:
            differences[name] = difference
    alone = sum(len(found) for found in rows) - 2 * len(shared)
    return Comparison(first, second, len(shared), alone, _said(models[0]), differences)


def _rows(storage: Storage, uri: str) -> list[dict[str, Any]]:
    file = join(open_output(storage, uri).uri, "run", "evaluation", "rows.parquet")
    try:
        with storage.open(file) as opened:
            rows: list[dict[str, Any]] = pq.read_table(opened).to_pylist()
    except (ObjectNotFound, FileNotFoundError):
        raise UsageError(
            f"{uri} is not evaluated; first: python -m jobs.evaluate --output {uri} --finished"
        ) from None
    return rows


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether the rows ask for the same. Pictures may lie elsewhere: their file names count."""
    names = [[uri.rsplit("/", 1)[-1] for uri in row["style_image_uri"]] for row in (first, second)]
    return first["prompt"] == second["prompt"] and names[0] == names[1]


def _said(models: set[str]) -> str:
    return " and ".join(sorted(models))
