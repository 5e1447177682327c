"""The report's part on a sweep: what each combination of settings scores, and videos side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline import report_figures as figures
from pipeline.evaluate_statistics import Interval, mean_interval
from pipeline.finished import FinishedOutput
from pipeline.report_numbers import SCORES, ReportNumbers
from schemas.sweep import swept_values

_COLUMNS = ("variant", "row_id", "sample_index", "prompt", "style_image_uri")
_MAX_COUNTED = 2_000  # rows that intervals are computed from
_MAX_EXAMPLES = 50
_MAX_EXAMPLE_RECORDS = 2_000
_MISSING = -1


@dataclass(frozen=True)
class Axis:
    """A swept setting."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SweepReport:
    """The section for the page, and which records its grid shows."""

    section: dict[str, Any]
    axes: list[Axis]
    examples_RC: np.ndarray  # positions of records by row and combination; -1 where there is none

    @property
    def positions(self) -> np.ndarray:
        return np.unique(self.examples_RC[self.examples_RC != _MISSING])

    def grid(self, listed: np.ndarray) -> dict[str, Any]:
        """What the script needs.

        Args:
            listed: positions of the records that the page has, ascending.
        """
        place = np.searchsorted(listed, self.examples_RC)
        return {
            "axes": [{"name": axis.name, "values": axis.values} for axis in self.axes],
            "examples": [
                [int(one) if position != _MISSING else None for one, position in zip(*row, strict=True)]
                for row in zip(place, self.examples_RC, strict=True)
            ],
        }


def sweep_report(output: FinishedOutput, numbers: ReportNumbers) -> SweepReport | None:
    """None where nothing was swept."""
    if not pc.any(pc.not_equal(output.table(["variant"])["variant"], "")).as_py():
        return None
    grid = _Grid(output)
    metrics = {name: grid.table(values) for name, values in numbers.scores.items()}
    metrics = {name: values for name, values in metrics.items() if np.isfinite(values).any()}
    made_RC = grid.table(numbers.ok.astype(float), missing=0.0).astype(bool)
    counted = np.flatnonzero(made_RC[:, made_RC.any(axis=0)].all(axis=1))  # a combination may fail everywhere
    note = (
        f"{len(grid.combinations)} combinations of {', '.join(axis.name for axis in grid.axes)}, each with the same "
        f"rows from the same noise: {grid.rows}, of which {len(counted)} are finished in all. Numbers are of these"
    )
    if len(counted) > _MAX_COUNTED:
        counted = counted[np.linspace(0, len(counted) - 1, _MAX_COUNTED).astype(int)]
        note += f", that is of {_MAX_COUNTED} of them, evenly chosen"
    found = {
        name: [mean_interval(column, grid.groups(counted)) for column in values_RC[counted].T]
        for name, values_RC in metrics.items()
    }
    section = {
        "note": f"{note}.",
        "table": _table(grid, found, np.nan_to_num(grid.table(numbers.device_s)[counted])),
        "figures": _figures(grid.axes, found) if len(counted) else [],
    }
    return SweepReport(section, grid.axes, grid.positions_RC[_examples(grid, metrics)])


class _Grid:
    """Positions of records by row (with sample) and combination."""

    def __init__(self, output: FinishedOutput):
        names: dict[tuple[str, int], int] = {}
        cells: list[tuple[int, int, str]] = []  # position, row, variant
        self._labels: list[tuple[str, str]] = []  # prompt and style of each row
        position = 0
        for batch in output.batches(_COLUMNS):
            for record in batch.to_pylist():
                if record["variant"]:
                    row = names.setdefault((record["row_id"], record["sample_index"]), len(names))
                    if row == len(self._labels):
                        self._labels.append((record["prompt"] or "", str(record["style_image_uri"])))
                    cells.append((position, row, record["variant"]))
                position += 1
        self.axes = _axes({variant for _, _, variant in cells})
        self.combinations = list(product(*(axis.values for axis in self.axes)))
        self.rows = len(names)
        self.positions_RC = np.full((self.rows, len(self.combinations)), _MISSING)
        order = {combination: column for column, combination in enumerate(self.combinations)}
        for position, row, variant in cells:
            self.positions_RC[row, order[tuple(swept_values(variant).values())]] = position

    def table(self, values: np.ndarray, missing: float = np.nan) -> np.ndarray:
        """Values of all records as [rows, combinations]."""
        return np.where(self.positions_RC == _MISSING, missing, values[self.positions_RC])

    def groups(self, rows: np.ndarray) -> list[list[str]]:
        """What rows share: prompts and styles."""
        return [[self._labels[row][kind] for row in rows] for kind in (0, 1)]


def _axes(variants: set[str]) -> list[Axis]:
    found: dict[str, set[str]] = {}
    for variant in variants:
        for name, value in swept_values(variant).items():
            found.setdefault(name, set()).add(value)
    return [Axis(name, tuple(sorted(values, key=_by_size))) for name, values in sorted(found.items())]


def _by_size(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return np.inf, value


def _table(grid: _Grid, found: dict[str, list[Interval]], device_s_RC: np.ndarray) -> dict[str, Any]:
    seconds = (
        [f"{mean:.2f}" for mean in device_s_RC.mean(axis=0)]
        if len(device_s_RC)
        else ["–"] * len(grid.combinations)
    )
    rows = [
        [*combination, *(str(intervals[column]) for intervals in found.values()), seconds[column]]
        for column, combination in enumerate(grid.combinations)
    ]
    head = [axis.name for axis in grid.axes] + [SCORES[name] for name in found] + ["Device s a video"]
    return {"title": "Means [95 % interval] over the same rows", "head": head, "rows": rows}


def _figures(axes: Sequence[Axis], found: dict[str, list[Interval]]) -> list[dict[str, Any]]:
    """Each score along the longest axis, one line for each combination of the others; and what they trade."""
    shape = [len(axis.values) for axis in axes]
    along = int(np.argmax(shape))
    others = [axis for place, axis in enumerate(axes) if place != along]
    names = [[f"{axis.name} {value}" for value in axis.values] for axis in others]
    lines = [", ".join(values) for values in product(*names)]
    shown = []
    for name, intervals in found.items():
        table = np.array([(one.mean, one.low, one.high) for one in intervals]).reshape(*shape, 3)
        by_line = np.moveaxis(table, along, -2).reshape(len(lines), shape[along], 3)
        drawn = dict(zip(lines, by_line, strict=True))
        svg = figures.sweep_lines(axes[along].name, axes[along].values, drawn, SCORES[name])
        shown.append({"title": f"{SCORES[name]} by {axes[along].name}", "svg": svg})
    if {"clip_text", "clip_style"} <= found.keys():
        means = {name: [one.mean for one in found[name]] for name in ("clip_text", "clip_style")}
        labels = [", ".join(values) for values in product(*(axis.values for axis in axes))]
        svg = figures.trade_off(means["clip_text"], means["clip_style"], labels, "CLIP-Text", "CLIP-Style")
        shown.append({"title": "Text against style", "svg": svg})
    return shown


def _examples(grid: _Grid, metrics: dict[str, np.ndarray]) -> np.ndarray:
    """Rows to show side by side: those that the settings change most, of those that have most videos."""
    spread = np.zeros(grid.rows)
    if "clip_style" in metrics:
        values = metrics["clip_style"]
        spread = np.nan_to_num(np.nanmax(values, axis=1, initial=-1) - np.nanmin(values, axis=1, initial=1))
    missing = (grid.positions_RC == _MISSING).sum(axis=1)
    most = max(1, min(_MAX_EXAMPLES, _MAX_EXAMPLE_RECORDS // len(grid.combinations)))
    return np.lexsort((-spread, missing))[:most]
