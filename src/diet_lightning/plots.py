"""Figures: arrays in, a matplotlib Figure out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # Okabe and Ito: safe for colour-blind eyes
MARKERS = "os^DvP*X<>ph"


def training_curves(loss_gap: Mapping[int, float], accuracies: Mapping[str, Mapping[int, float]]) -> Figure:
    """Loss gap and probe accuracies over the epochs, one above the other.

    Args:
        loss_gap: Epoch → loss minus its floor, in nats.
        accuracies: Name → epoch → accuracy in [0, 1]; may be empty.

    Returns:
        The figure, with the last value written at the end of each curve.
    """
    figure = Figure(figsize=(7, 5.5 if accuracies else 3.2), layout="constrained")
    axes = figure.subplots(2 if accuracies else 1, 1, sharex=True, squeeze=False)[:, 0]
    _curve(axes[0], loss_gap, COLOURS[0], "train/loss_gap", "{:.3f}")
    axes[0].set_ylabel("loss − floor (nats)")
    axes[0].set_ylim(bottom=0)
    axes[0].set_title("Training loss above its floor" + (", and linear probe" if accuracies else ""))
    if accuracies:
        top1 = {name: curve for name, curve in accuracies.items() if name.endswith("top1")}
        for colour, (name, curve) in zip(COLOURS[1:] * len(top1), top1.items(), strict=False):
            _curve(axes[1], {epoch: 100 * value for epoch, value in curve.items()}, colour, name, "{:.1f} %")
        axes[1].set_ylabel("top-1 accuracy (%)")
        axes[1].legend(loc="lower right", frameon=False)
    axes[-1].set_xlabel("epoch")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.08)
    return figure


def _curve(axis: Axes, points: Mapping[int, float], colour: str, label: str, form: str) -> None:
    epochs = sorted(points)
    values = [points[epoch] for epoch in epochs]
    axis.plot(epochs, values, color=colour, label=label, marker="o" if len(epochs) < 40 else None, markersize=3)
    axis.annotate(
        form.format(values[-1]), (epochs[-1], values[-1]), (6, 0), textcoords="offset points", color=colour, va="center"
    )


def loss_against_probe(
    losses: Sequence[ArrayLike],
    accuracies: Sequence[ArrayLike],
    smoothings: Sequence[float],
    models: Sequence[str],
    notes: Mapping[float, str] | None = None,
    metric: str = "probe/val_top1",
) -> Figure:
    """Training loss against probe accuracy over runs and their epochs (DIET, Figure 1).

    Args:
        losses: Of each run, the loss minus its floor in its validated epochs, in nats and above 0, shape ``(E,)``.
        accuracies: Of each run, in the same epochs, in [0, 1].
        smoothings: Of each run, its label smoothing: the colour.
        models: Of each run, its backbone: the marker, where there are several.
        notes: Label smoothing → what its line in the legend says besides, such as its rank correlation.
        metric: Name of the accuracy.

    Returns:
        The figure: a run is a thin line through its epochs, and a solid point at its end.
    """
    values, names = sorted(set(smoothings)), sorted(set(models), key=_by_number)
    colours = dict(zip(values, _ordered_colours(len(values)), strict=True))
    markers = {name: MARKERS[n % len(MARKERS)] for n, name in enumerate(names)}
    figure = Figure(figsize=(7, 4.5 + 0.22 * max(len(values), len(names))), layout="constrained")
    axis = figure.subplots()
    all_losses = np.concatenate([np.atleast_1d(np.asarray(loss, float)) for loss in losses])
    for loss, accuracy, smoothing, model in zip(losses, accuracies, smoothings, models, strict=True):
        x, y = np.atleast_1d(np.asarray(loss, float)), 100 * np.atleast_1d(np.asarray(accuracy, float))
        colour = colours[smoothing]
        axis.plot(x, y, color=colour, alpha=0.35, linewidth=0.8, marker="o", markersize=2.5, zorder=1)
        end: dict[str, Any] = {"markersize": 8, "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 3}
        axis.plot(x[-1], y[-1], color=colour, marker=markers[model], linestyle="none", **end)
    axis.set_xscale("log")
    decades = all_losses.max() > 10.0 * all_losses.min()
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if decades else MaxNLocator(7))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("training loss − floor (nats)")
    axis.set_ylabel(f"{metric} (%)")
    axis.set_title("Training loss against probe accuracy, each run's epochs and its end")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    lines = [(f"smoothing {value:g}", (notes or {}).get(value, ""), colours[value]) for value in values]
    handles = [
        Line2D([], [], color=colour, marker="o", label=": ".join(filter(None, parts))) for *parts, colour in lines
    ]
    # outside, where no point can lie below them
    figure.legend(handles=handles, loc="outside lower left", frameon=False)
    if len(names) > 1:
        shapes = [Line2D([], [], color="0.35", marker=markers[name], linestyle="none", label=name) for name in names]
        figure.legend(handles=shapes, loc="outside lower right", frameon=False)
    return figure


def _by_number(name: str) -> list[str | int]:
    """Orders resnet8_w8 before resnet8_w16."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _ordered_colours(count: int) -> list[str | tuple[float, float, float, float]]:
    """Colours that differ, or where they are too many a scale that also reads without colour, from dark to light."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [colormaps["viridis"](0.9 * n / (count - 1)) for n in range(count)]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG on a white ground, so that it also reads on a dark page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
