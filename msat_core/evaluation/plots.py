"""The pictures of an evaluation, drawn with matplotlib from plain data; nothing here computes a result."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msat_core.errors import ConfigurationError
from msat_core.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from msat_core.evaluation.cost import CurvePoint
    from msat_core.evaluation.metrics import ReliabilityBin

OURS, OTHER, GREY = "#1b6ca8", "#b9c4cc", "#5f6b73"
COLOURS = ("#1b6ca8", "#d1603d", "#4f9d69", "#8a6fb0", "#c9a227", "#5f6b73", "#c06c84", "#3d9ea3", "#8c564b", "#2f2f2f")
Z_95 = 1.96  # the normal quantile of a two-sided 95% interval

Estimate = tuple[float, float, float]  # mean, low, high


def gains_figure(gains: Mapping[str, Estimate], title: str) -> Figure:
    """What routing gains over each yardstick and baseline: bars with 95% intervals, in points."""
    figure, axes = _figure(7.2, 0.9 + 0.32 * len(gains))
    names = list(gains)[::-1]
    means = [100 * gains[name][0] for name in names]
    below = [100 * (gains[name][0] - gains[name][1]) for name in names]
    above = [100 * (gains[name][2] - gains[name][0]) for name in names]
    colours = [OURS if gains[name][1] > 0 else OTHER for name in names]
    axes.barh(names, means, 0.62, xerr=[below, above], color=colours, ecolor=GREY, capsize=2.5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("accuracy gained by routing, points; dark where the 95% interval is above zero")
    axes.set_title(title, fontsize=10, loc="left")
    return figure


def reliability_figure(bins: Mapping[str, Sequence[ReliabilityBin]], title: str) -> Figure:
    """Mean outcome over mean score in equal-mass bins, with 95% intervals; the diagonal is perfect."""
    figure, axes = _figure(4.6, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for colour, (name, groups) in zip(COLOURS, bins.items(), strict=False):
        error = [Z_95 * group.variance**0.5 for group in groups]
        axes.errorbar(
            [group.score for group in groups],
            [group.outcome for group in groups],
            yerr=error,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            capsize=2,
            color=colour,
            label=name,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="score", ylabel="share right")
    axes.set_title(title, fontsize=10, loc="left")
    if len(bins) > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def cost_figure(
    curves: Mapping[str, Sequence[CurvePoint]],
    singles: Mapping[str, tuple[float, float]],
    title: str,
    xlabel: str = "USD for all instructions",
) -> Figure:
    """Accuracy over cost as the weight of cost rises; single candidates, (cost, accuracy), are dots."""
    figure, axes = _figure(7.2, 4.0)
    for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
        ordered = sorted(points, key=lambda point: point.cost_usd)
        axes.plot(
            [point.cost_usd for point in ordered],
            [100 * point.accuracy for point in ordered],
            marker=".",
            color=colour,
            linewidth=1.8 if colour == OURS else 1.0,
            label=name,
            zorder=3 if colour == OURS else 2,
        )
    costs, accuracies = zip(*singles.values(), strict=True)
    axes.scatter(costs, [100 * a for a in accuracies], marker="D", s=18, color="black", zorder=4)
    for name, (cost, accuracy) in singles.items():
        axes.annotate(name, (cost, 100 * accuracy), textcoords="offset points", xytext=(5, -9), fontsize=7, color=GREY)
    if min(costs) > 0:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=xlabel, ylabel="accuracy, %")
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def lines_figure(places: Sequence[str], curves: Mapping[str, Sequence[float]], title: str, ylabel: str) -> Figure:
    """One line a method over named places (releases, candidates joining); values are fractions, shown in per cent."""
    figure, axes = _figure(7.6, 4.0)
    for colour, (name, values) in zip(COLOURS, curves.items(), strict=False):
        width = 2.2 if colour == OURS else 1.1
        axes.plot(range(len(values)), [100 * v for v in values], marker=".", color=colour, linewidth=width, label=name)
    axes.set_xticks(range(len(places)), places, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def png_of(figure: Figure, dpi: int = 120) -> bytes:
    """The figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each as ``<name>.png``; the folder is made if it does not exist."""
    paths = []
    for name, figure in figures.items():
        paths.append(write_bytes(folder / f"{name}.png", png_of(figure)))
    return paths


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError(
            "Plots need matplotlib: install it with `pip install 'model-sat-router[plots]'`."
        ) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Any = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes
