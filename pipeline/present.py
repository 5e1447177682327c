"""Plans and summaries as text for a terminal."""

from math import prod
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.agreement import ORPHANS
from pipeline.reconcile import Reconciliation
from pipeline.summary import RunSummary
from schemas.settings import DEFAULTS

UNTRAINED_NOTE = (
    "The model, or its style adapter, is UNTRAINED (random weights): videos show that the pipeline works, "
    "not what it can do."
)
_MAX_SHAPES = 10
_MAX_EXAMPLES = 5


def print_plan(plan: dict[str, Any], console: Console) -> None:
    """What a run will do."""
    table = Table(title="Plan", show_header=False, title_justify="left")
    table.add_row(
        "manifest", f"{escape(plan['manifest'])}  ({plan['manifest_rows']} rows, {plan['records']} records)"
    )
    if plan["sweep"]:
        table.add_row("sweep", _sweep(plan["sweep"]))
    table.add_row("to render", f"{plan['to_render']} videos in {plan['work_units']} work units")
    table.add_row("to copy", f"{plan['to_copy']} records that share a video with another")
    table.add_row("already done", _counts(plan["already_done"]) or "0")
    table.add_row("cannot be rendered", f"{plan['new_invalid']} invalid, {plan['new_failed']} failed")
    for shape in plan["shapes"][:_MAX_SHAPES]:
        table.add_row("shape", _shape(shape))
    if (hidden := len(plan["shapes"]) - _MAX_SHAPES) > 0:
        table.add_row("", f"and {hidden} more shapes")
    table.add_row("actors", _actors(plan))
    table.add_row("estimate", _estimate(plan))
    console.print(table)
    for warning in plan["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def print_summary(
    summary: RunSummary, output: str, console: Console, goes_on: str = "run the same command again"
) -> None:
    """What a run did, and where it is.

    Args:
        goes_on: how what is not finished gets finished.
    """
    table = Table(title=f"Run {summary.run_id}", show_header=False, title_justify="left")
    table.add_row("records", f"{summary.records}: {_counts(summary.statuses)}")
    if summary.missing:
        table.add_row("not finished", f"{summary.missing}; {goes_on}")
    for error_class, count in sorted(summary.error_classes.items()):
        table.add_row("  " + error_class, str(count))
    table.add_row("rendered now", f"{summary.rendered}, reused {summary.reused}")
    table.add_row("time", f"{summary.wall_s:.1f} s, of which {summary.render_s:.1f} s on the device")
    if summary.spent_usd is not None:
        table.add_row("spent", f"${summary.spent_usd:,.2f}")
    if summary.stopped:
        table.add_row("stopped", f"by {summary.stopped}; the same command goes on")
    for kind, count in summary.problems.items():
        table.add_row(kind.replace("_", " "), f"{count}; jobs.reconcile names them")
    if summary.mean_scores:
        table.add_row(
            "mean scores", ", ".join(f"{name} {value:.4f}" for name, value in summary.mean_scores.items())
        )
    table.add_row("videos", escape(f"{output}/videos"))
    table.add_row("records", escape(f"{output}/records"))
    table.add_row("summary", escape(f"{output}/run/summary.json"))
    console.print(table)
    if not summary.model_trained:
        console.print(UNTRAINED_NOTE, style="yellow", highlight=False)


def print_reconciliation(result: Reconciliation, output: str, console: Console) -> None:
    """What agrees, what differs, and what was done about it."""
    table = Table(title=f"Output {escape(output)}", show_header=False, title_justify="left")
    table.add_row("manifest", f"{escape(result.about['manifest'])}: {result.asked} records")
    table.add_row("committed", _counts(result.statuses) or "0")
    table.add_row("checked", result.about["checked"])
    for action, count in result.actions.items():
        table.add_row("repaired", f"{count} {action}")
    for kind, count in result.counts.items():
        note = " (no error)" if kind in ORPHANS else ""
        table.add_row(kind.replace("_", " "), f"{count}{note}")
        for found in result.examples[kind][:_MAX_EXAMPLES]:
            table.add_row("", escape(_example(found)))
    verdict = "all agree; _SUCCESS is written" if result.agrees else "they differ; there is no _SUCCESS"
    table.add_row("result", verdict)
    console.print(table)
    if not result.agrees:
        console.print(f"Everything found is in {output}/run/reconcile.json.", highlight=False, markup=False)
        console.print(
            "jobs.reconcile --repair sets damage aside; jobs.render makes what is missing.", highlight=False
        )


def _example(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" if name != "reason" else value for name, value in found.items())


def _counts(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))


def _sweep(axes: dict[str, list[Any]]) -> str:
    values = "; ".join(f"{name} {' '.join(map(str, values))}" for name, values in axes.items())
    return f"{prod(map(len, axes.values()))} combinations for each row: {values}"


def _shape(shape: dict[str, Any]) -> str:
    return (
        f"{shape['videos']} x {shape['mode']} {shape['num_frames']} frames {shape['height']}x{shape['width']}, "
        f"{shape['num_inference_steps']} steps{_unusual(shape)}, about {shape['estimated_s_per_video']:g} s each"
    )


def _unusual(shape: dict[str, Any]) -> str:
    """What tells a shape from one of the same size and steps."""
    scheduler = f" of {shape['scheduler']}" if shape["scheduler"] != DEFAULTS["scheduler"] else ""
    interval = shape["guidance_start"], shape["guidance_end"]
    guided = f", guided from {interval[0]:g} to {interval[1]:g}" if interval != (0, 1) else ""
    return scheduler + guided + (", with depth" if shape["with_depth"] else "")


def _actors(plan: dict[str, Any]) -> str:
    device = f"{plan['gpus_per_actor']:g} GPUs" if plan["gpus_per_actor"] else "no GPU"
    return (
        f"{plan['actors']} with {plan['cpus_per_actor']:g} CPUs and {device} each, {plan['dtype']}, "
        f"batches of {plan['batch_size']}"
    )


def _estimate(plan: dict[str, Any]) -> str:
    text = f"about {plan['estimated_wall_s']:g} s"
    if plan["gpus_per_actor"]:
        text += f", {plan['estimated_gpu_hours']:g} GPU-hours"
    if plan["estimated_cost_usd"] is not None:
        text += f", ${plan['estimated_cost_usd']:.2f}"
    return text + " (from FLOPs; the run shows a measured ETA)"
