"""Evaluations and comparisons as text for a terminal: the paper's table with ours beside it."""

from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.evaluate import LOWER_IS_BETTER, METRICS, Evaluation
from pipeline.evaluate_compare import Comparison
from pipeline.report_rows import style_name

PUBLISHED_CLIP = "CLIP-ViT-H-14-laion2B-s32B-b79K"


class Published(NamedTuple):
    """A column of the paper's tables (arXiv 2312.00330v2)."""

    title: str
    mode: str
    references: str  # "one" or "many" per style
    figures: dict[str, float]


PUBLISHED = (
    Published(
        "paper, 1 reference, 240 videos",
        "video",
        "one",
        {"clip_text": 0.2726, "clip_style": 0.4531, "clip_temp": 0.9892, "warping_error": 18.73e-3},
    ),
    Published(
        "paper, several references, 60 videos",
        "video",
        "many",
        {"clip_text": 0.2634, "clip_style": 0.4887, "clip_temp": 0.9852, "warping_error": 9.396e-3},
    ),
    Published(
        "paper, SD 2.1, 400 pictures",
        "image",
        "one",
        {"clip_text": 0.3028, "clip_style": 0.4836, "dino_style": 0.3652},
    ),
    Published(
        "paper, SDXL, 400 pictures",
        "image",
        "one",
        {"clip_text": 0.2918, "clip_style": 0.5615, "dino_style": 0.4514},
    ),
)
_PAPERS = {name for column in PUBLISHED for name in column.figures}
_FEWEST = 5


def published_for(mode: str, references: int) -> list[Published]:
    """The paper's columns for renders of this kind."""
    kind = "many" if references > 1 else "one"
    return [column for column in PUBLISHED if column.mode == mode and column.references == kind]


def metric_label(name: str) -> str:
    return f"{METRICS[name]} {'↓' if name in LOWER_IS_BETTER else '↑'}"


def comparability(evaluation: Evaluation) -> str:
    """What stands between our figures and the paper's."""
    if PUBLISHED_CLIP in evaluation.models:
        return f"Scored with {evaluation.models}."
    return (
        f"Scored with {evaluation.models}. The paper's figures are of {PUBLISHED_CLIP}: with another CLIP the "
        "columns cannot be compared."
    )


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The metrics with intervals, the paper's beside them, and the styles that fare worst."""
    columns = published_for(evaluation.mode, evaluation.references)
    table = Table(
        title=f"{evaluation.videos} videos, {evaluation.styles} styles; mean [95 % interval]",
        title_justify="left",
    )
    table.add_column("metric")
    table.add_column("ours", justify="right")
    for column in columns:
        table.add_column(column.title, justify="right")
    for name, interval in evaluation.metrics.items():
        paper = [f"{column.figures[name]:.4f}" if name in column.figures else "" for column in columns]
        table.add_row(metric_label(name), str(interval), *paper)
    console.print(table)
    if len(evaluation.by_style) > 1 and "clip_style" in evaluation.metrics:
        worst = sorted(evaluation.by_style.items(), key=lambda item: item[1].get("clip_style", 1.0))[:_FEWEST]
        named = {", ".join(style_name(uri) for uri in style.split(";")): means for style, means in worst}
        _print_means("Styles that fare worst (run/report.html has all)", named, evaluation, console)
    if evaluation.by_variant:
        named = {name.replace(",", " "): means for name, means in evaluation.by_variant.items()}
        _print_means("Combinations of the sweep", named, evaluation, console)
    note = comparability(evaluation)
    if "warping_error" not in evaluation.metrics:
        note += " No warping error: no optical flow network was given (--flow)."
    if "style_first" in evaluation.metrics:
        note += f" By chance, style retrieval would be {1 / evaluation.styles:.4f}."
    console.print(note, highlight=False, markup=False)
    for row_id, error in list(evaluation.errors.items())[:_FEWEST]:
        console.print(f"not scored: {row_id}: {error}", style="yellow", highlight=False, markup=False)
    if len(evaluation.errors) > _FEWEST:
        console.print(f"and {len(evaluation.errors) - _FEWEST} more that could not be scored", style="yellow")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Differences with intervals, and which of them are no chance; fits 80 columns."""
    console.print(f"A  {comparison.first}\nB  {comparison.second}", highlight=False, markup=False)
    alone = f"; {comparison.only_in_one} without partner" if comparison.only_in_one else ""
    table = Table(
        title=f"{comparison.rows} rows in both{alone}; 95 % intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for name in ("metric", "A", "B", "B - A", "effect", "B > A", "better"):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for name, found in comparison.differences.items():
        digits = 2 if name == "style_rank" else 4
        difference = found.difference
        table.add_row(
            metric_label(name),
            f"{found.first:.{digits}f}",
            f"{found.second:.{digits}f}",
            f"{difference.mean:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]",
            f"{found.effect_size:+.2f}",
            f"{100 * found.higher:.0f} %",
            _better(name, difference.mean) if found.is_significant else "-",
        )
    console.print(table)
    console.print(
        "effect: mean difference in its own standard deviations (paired). B > A: share of rows. better -: no clear "
        f"difference. Scored with {comparison.models}.",
        highlight=False,
        markup=False,
    )


def _better(name: str, difference: float) -> str:
    return "B" if (difference > 0) != (name in LOWER_IS_BETTER) else "A"


def _print_means(
    title: str, parts: dict[str, dict[str, float]], evaluation: Evaluation, console: Console
) -> None:
    """Means of the paper's metrics, which fit a terminal's width."""
    shown = [name for name in evaluation.metrics if name in _PAPERS]
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for name in shown:
        table.add_column(METRICS[name], justify="right", no_wrap=True)
    for part, means in parts.items():
        table.add_row(escape(part), *(f"{means[name]:.4f}" if name in means else "–" for name in shown))
    console.print(table)
