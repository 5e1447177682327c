"""The report's plots: matplotlib's SVG, with colours and font of the page, so that it follows light and dark."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.report_numbers import STAGES, Timeline

# Colours that stand for the page's own; in a plot they are used for nothing else.
_INK, _LINE = "#010203", "#010204"
_SERIES = tuple(f"#0102{number:02x}" for number in range(16, 24))
_VARIABLES = {_INK: "--ink-2", _LINE: "--rule", **{color: f"--series-{i}" for i, color in enumerate(_SERIES)}}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font, and is found and read aloud
    "svg.hashsalt": "report",  # equal figures give equal files
    "font.size": 8.5,
    "font.family": "DejaVu Sans",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.prop_cycle": cycler(color=list(_SERIES)),
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
}
_WIDTH_IN, _HEIGHT_IN = 4.7, 2.5  # near its size on a phone, so that text keeps its size there
_MAX_NODES = 6
_MAX_CELLS = 24
_MAX_NAMED_POINTS = 24


def histogram(values: np.ndarray, label: str) -> Markup:
    """How a score is distributed, with its mean."""
    values = values[np.isfinite(values)]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        bins = min(40, max(5, int(np.sqrt(len(values)))))
        axes.hist(values, bins=bins, color=_SERIES[0], edgecolor=_SERIES[0], linewidth=0.5)
        axes.margins(y=0.14)
        axes.axvline(values.mean(), color=_SERIES[1], linewidth=1.6)
        axes.annotate(
            f"mean {values.mean():.4f}", (values.mean(), 1.0), (4, -2), ("data", "axes fraction"),
            textcoords="offset points", va="top",
        )  # fmt: skip
        axes.set_xlabel(label)
        axes.set_ylabel("videos")
        return _svg(figure, f"Distribution of {label} over {len(values)} videos; mean {values.mean():.4f}")


def throughput(timeline: Timeline) -> Markup:
    """Videos per hour over the run."""
    per_hour = timeline.videos * 3600 / timeline.step_s
    mean = timeline.videos.sum() * 3600 / timeline.span_s
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        unit, scale = _time_unit(timeline.span_s)
        axes.stairs(per_hour, timeline.edges_s / scale, fill=True, color=_SERIES[0])
        axes.axhline(mean, color=_SERIES[1], linewidth=1.2)
        axes.set_xlabel(f"{unit} since the first video began")
        axes.set_ylabel("videos per hour")
        return _svg(figure, f"Videos finished per hour over the run, {mean:.0f} on average")


def stages(timeline: Timeline) -> Markup:
    """Where a video's time went, over the run."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        unit, scale = _time_unit(timeline.span_s)
        there = timeline.videos > 0
        middle = (timeline.edges_s[:-1] + timeline.edges_s[1:])[there] / 2 / scale
        values = [np.nan_to_num(timeline.stage_s[name][there]) for name in STAGES]
        if len(middle) > 1:
            axes.stackplot(middle, values, labels=list(STAGES.values()), colors=_SERIES)
        else:
            for label, value in zip(STAGES.values(), values, strict=True):
                axes.bar(label, value[0] if len(value) else 0)
        axes.set_xlabel(f"{unit} since the first video began")
        axes.set_ylabel("seconds per video")
        _legend(axes)
        return _svg(figure, "Mean seconds per video in each stage, over the run")


def busy(timeline: Timeline) -> Markup:
    """Devices at work over the run, by node, against the actors that there were."""
    nodes = sorted(timeline.busy, key=lambda node: -timeline.busy[node].sum())
    shown = {node: timeline.busy[node] for node in nodes[:_MAX_NODES]}
    if len(nodes) > _MAX_NODES:
        shown[f"{len(nodes) - _MAX_NODES} more"] = np.sum(
            [timeline.busy[node] for node in nodes[_MAX_NODES:]], axis=0
        )
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        unit, scale = _time_unit(timeline.span_s)
        base = np.zeros(len(timeline.videos))
        for (node, share), color in zip(shown.items(), _SERIES, strict=False):
            axes.stairs(
                base + share,
                timeline.edges_s / scale,
                baseline=base,
                fill=True,
                color=color,
                label=_short(node),
            )
            base = base + share
        if timeline.actors:
            axes.axhline(timeline.actors, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate("actors", (1, timeline.actors), (-2, 2), ("axes fraction", "data"),
                          textcoords="offset points", ha="right")  # fmt: skip
        axes.set_ylim(0, max(float(base.max()), timeline.actors or 0) * 1.15)
        axes.set_xlabel(f"{unit} since the first video began")
        axes.set_ylabel("devices at work")
        _legend(axes)
        return _svg(figure, "Devices at work over the run, by node")


def fusion_map(means: np.ndarray, styles: Sequence[str], prompts: Sequence[str]) -> Markup:
    """Mean predicted fusion scale of each style with each prompt; NaN where there is no such video.

    Args:
        means: [styles, prompts].
    """
    means = means[:_MAX_CELLS, :_MAX_CELLS]
    rows, columns = means.shape
    with matplotlib.rc_context(_STYLE):
        height = max(_HEIGHT_IN, 1.3 + 0.17 * rows)
        figure, axes = _axes(height)
        mesh = axes.pcolormesh(np.ma.masked_invalid(means), cmap="cividis", edgecolors="none")
        axes.set_yticks(np.arange(rows) + 0.5, [_short(style) for style in styles[:rows]], fontsize=7)
        axes.set_xticks(
            np.arange(columns) + 0.5, [_short(prompt) for prompt in prompts[:columns]], fontsize=6.5, rotation=55,
            ha="right", rotation_mode="anchor",
        )  # fmt: skip
        axes.invert_yaxis()
        axes.grid(visible=False)
        figure.colorbar(mesh, ax=axes, label="1 + tanh(.)", pad=0.02).outline.set_visible(False)
        return _svg(figure, f"Mean fusion scale of {rows} styles (rows) with {columns} prompts (columns)")


def fusion_layers(layers: Mapping[str, np.ndarray]) -> Markup:
    """Fusion scale of each layer.

    Args:
        layers: "mean", "low" and "high" over the videos, each [layers].
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        index = np.arange(1, len(layers["mean"]) + 1)
        axes.fill_between(index, layers["low"], layers["high"], color=_SERIES[0], alpha=0.25, linewidth=0)
        axes.plot(index, layers["mean"], color=_SERIES[0], marker="o", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axhline(1, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlabel("style cross-attention layer: down, middle, up")
        axes.set_ylabel("fusion scale")
        return _svg(figure, "Fusion scale by layer: mean, and 5 to 95 % of the videos")


def sweep_lines(axis: str, values: Sequence[str], lines: Mapping[str, np.ndarray], label: str) -> Markup:
    """A score along a swept setting, with its intervals.

    Args:
        values: of the setting, in order; numbers or words.
        lines: by the values of the other settings: mean, low and high, [values, 3].
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        try:
            places = np.array([float(value) for value in values])
        except ValueError:
            places = np.arange(len(values))
        shift = (places[-1] - places[0]) / 60 / max(1, len(lines))  # else intervals hide each other
        for number, (name, found) in enumerate(list(lines.items())[: len(_SERIES)]):
            mean, low, high = found.T
            moved = places + shift * (number - (min(len(lines), len(_SERIES)) - 1) / 2)
            errors = np.stack([mean - low, high - mean]).clip(min=0)
            axes.errorbar(
                moved, mean, errors, marker="o", markersize=3.5, capsize=2, linewidth=1.3, label=name or None
            )
        axes.set_xticks(places, values)
        axes.set_xlabel(axis)
        axes.set_ylabel(label)
        _legend(axes)
        hidden = f"; {len(_SERIES)} of {len(lines)} lines" if len(lines) > len(_SERIES) else ""
        return _svg(figure, f"{label} by {axis}, mean and 95 % interval{hidden}")


def trade_off(across: Sequence[float], up: Sequence[float], names: Sequence[str], x: str, y: str) -> Markup:
    """Combinations by the means of two scores; the better in both, the further up right."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        axes.scatter(across, up, s=22, color=_SERIES[0])
        for place in zip(across, up, names, strict=True) if len(names) <= _MAX_NAMED_POINTS else ():
            axes.annotate(place[2], place[:2], (4, 3), textcoords="offset points", fontsize=6.5)
        axes.margins(0.12, 0.15)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return _svg(figure, f"{y} against {x} of {len(names)} combinations")


def _axes(height_in: float = _HEIGHT_IN) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.figure.legend(
            handles, labels, loc="outside upper center", ncols=4, handlelength=0.9, columnspacing=1
        )


def _time_unit(span_s: float) -> tuple[str, float]:
    return next(
        (unit for unit in (("hours", 3600.0), ("minutes", 60.0)) if span_s > 2 * unit[1]), ("seconds", 1.0)
    )


def _short(text: str, most: int = 26) -> str:
    text = text.replace("$", r"\$")  # else matplotlib reads it as mathematics
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(figure: Figure, description: str) -> Markup:
    """The figure as an element of the page. matplotlib escapes the text in it."""
    file = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from"
        )  # the browser's font draws the text
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # else two plots of a page would share ids
    text = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, flags=re.DOTALL
    )
    text = re.sub(r"(font(?:-family)?): ([\d.]+px )?'DejaVu Sans'[^;\"]*", _font, text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    label = Markup('<svg role="img" aria-label="{}"').format(description)
    return Markup(text.replace("<svg", label, 1))


def _font(found: re.Match[str]) -> str:
    return f"font-size: {found[2].strip()}" if found[2] else "font-family: inherit"
