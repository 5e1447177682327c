"""The report's part on an evaluation, where `jobs.evaluate` left one."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.storage import ObjectNotFound, join
from pipeline import report_figures as figures
from pipeline.evaluate import METRICS, Evaluation
from pipeline.evaluate_present import comparability, metric_label, published_for
from pipeline.evaluate_statistics import Interval
from pipeline.finished import FinishedOutput
from pipeline.report_rows import style_name

_MAX_LINES = 50


def evaluation_section(output: FinishedOutput) -> dict[str, Any] | None:
    """Tables and plots of `run/evaluation/`; None where there is none."""
    found = output.run_json("evaluation", "evaluation.json")
    if not found:
        return None
    metrics = {name: Interval(**interval) for name, interval in found.pop("metrics").items()}
    evaluation = Evaluation(metrics=metrics, **found)
    errors = f" {len(evaluation.errors)} videos could not be scored." if evaluation.errors else ""
    return {
        "note": f"{evaluation.videos} videos of {evaluation.styles} styles. {comparability(evaluation)}{errors}",
        "tables": [
            _metrics(evaluation),
            _breakdown("By style, worst CLIP-Style first", evaluation, evaluation.by_style, "clip_style"),
            _breakdown("By prompt, worst CLIP-Text first", evaluation, evaluation.by_prompt, "clip_text"),
            *_by_variant(evaluation),
        ],
        "figures": _fusion(output),
    }


def _metrics(evaluation: Evaluation) -> dict[str, Any]:
    columns = published_for(evaluation.mode, evaluation.references)
    rows = [
        [metric_label(name), str(interval)]
        + [f"{column.figures[name]:.4f}" if name in column.figures else "" for column in columns]
        for name, interval in evaluation.metrics.items()
    ]
    head = ["Metric", "Mean [95 % interval]", *(column.title for column in columns)]
    return {"title": "Metrics, and the paper's", "head": head, "rows": rows}


def _breakdown(
    title: str, evaluation: Evaluation, parts: dict[str, dict[str, float]], order: str
) -> dict[str, Any]:
    worst = sorted(parts.items(), key=lambda item: item[1].get(order, 2.0))
    rows = [
        [_label(name), f"{means['videos']:.0f}"]
        + [f"{means[metric]:.4f}" if metric in means else "–" for metric in evaluation.metrics]
        for name, means in worst[:_MAX_LINES]
    ]
    shown = f" ({_MAX_LINES} of {len(worst)})" if len(worst) > _MAX_LINES else ""
    head = ["", "Videos", *(METRICS[metric] for metric in evaluation.metrics)]
    return {"title": title + shown, "head": head, "rows": rows}


def _by_variant(evaluation: Evaluation) -> list[dict[str, Any]]:
    if not evaluation.by_variant:
        return []
    return [_breakdown("By combination of the sweep", evaluation, evaluation.by_variant, "")]


def _fusion(output: FinishedOutput) -> list[dict[str, Any]]:
    """How the predicted fusion scales follow style and prompt: the paper leaves that open."""
    rows = _rows(output)
    scales = [row["fusion_scales"] for row in rows if row["fusion_scales"]]
    if not scales or len({len(found) for found in scales}) > 1:
        return []
    layers = np.array(scales)
    low, high = np.quantile(layers, (0.05, 0.95), axis=0)
    shown = [
        {
            "title": "By layer",
            "svg": figures.fusion_layers({"mean": layers.mean(axis=0), "low": low, "high": high}),
        }
    ]
    with_scales = [row for row in rows if row["fusion_scales"]]
    styles = list(dict.fromkeys(row["style"] for row in with_scales))
    prompts = list(dict.fromkeys(row["prompt"] for row in with_scales))
    total, count = np.zeros((len(styles), len(prompts))), np.zeros((len(styles), len(prompts)))
    for row in with_scales:
        place = styles.index(row["style"]), prompts.index(row["prompt"])
        total[place] += np.mean(row["fusion_scales"])
        count[place] += 1
    with np.errstate(invalid="ignore"):
        means = total / count
    names = [_label(style) for style in styles]
    shown.append(
        {
            "title": "By style and prompt (mean of the layers)",
            "svg": figures.fusion_map(means, names, prompts),
        }
    )
    return shown


def _rows(output: FinishedOutput) -> list[dict[str, Any]]:
    file = join(output.uri, "run", "evaluation", "rows.parquet")
    try:
        with output.storage.open(file) as opened:
            table = pq.read_table(opened, columns=["style", "prompt", "fusion_scales"])
    except (ObjectNotFound, FileNotFoundError, pa.ArrowException):
        return []
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _label(name: str) -> str:
    """A set of style pictures by their file names; a prompt is itself."""
    if "://" in name or name.startswith("/") or ";" in name:
        return ", ".join(style_name(uri) for uri in name.split(";"))
    return name
