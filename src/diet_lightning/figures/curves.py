"""Figures of losses and accuracies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from diet_lightning.figures.style import COLOURS, MARKERS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def training_curves(loss_gap: Mapping[int, float], accuracies: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draws the loss gap and, below it, probe accuracies over the epochs.

    Args:
        loss_gap: Epoch → loss minus its floor, in nats.
        accuracies: Name → epoch → accuracy in [0, 1]; may be empty.

    Returns:
        The figure, with the last value written at the end of each curve.
    """
    rows, height = (2, 5.5) if accuracies else (1, 3.2)
    figure, axes = new_figure(7, height, rows, grid=True, sharex=True, squeeze=False)
    axes = axes[:, 0]
    _curve(axes[0], loss_gap, COLOURS[0], "loss gap", "{:.3f}")
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
    metric: str = "probe accuracy",
) -> Figure:
    """Training loss against probe accuracy over runs and their epochs (DIET, Figure 1).

    Args:
        losses: Loss minus its floor of each run in its validated epochs, in nats and above 0, shape ``(E,)``.
        accuracies: Accuracies of each run in the same epochs, in [0, 1].
        smoothings: Label smoothing of each run, shown as the colour.
        models: Backbone of each run, shown as the marker if there are several.
        notes: Label smoothing → text added to its line in the legend, such as its rank correlation.
        metric: Name of the accuracy.

    Returns:
        The figure: each run is a thin line through its epochs with a solid point at the last one.
    """
    from matplotlib import colormaps
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

    values, names = sorted(set(smoothings)), sorted(set(models), key=_by_number)
    # for many values a scale from dark to light, which is also readable without colour
    scale = [colormaps["viridis"](shade) for shade in np.linspace(0.0, 0.9, len(values))]
    colours = dict(zip(values, COLOURS if len(values) <= len(COLOURS) else scale, strict=False))
    markers = {name: MARKERS[n % len(MARKERS)] for n, name in enumerate(names)}
    figure, axis = new_figure(7, 4.5 + 0.22 * max(len(values), len(names)), grid=True)
    all_losses = np.hstack([np.asarray(loss, float) for loss in losses])
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
    handles = []
    for value in values:
        label = f"smoothing {value:g}" + (f": {notes[value]}" if notes and notes.get(value) else "")
        handles.append(Line2D([], [], color=colours[value], marker="o", label=label))
    # outside, so that the legend covers no point
    figure.legend(handles=handles, loc="outside lower left", frameon=False)
    if len(names) > 1:
        shapes = [Line2D([], [], color="0.35", marker=markers[name], linestyle="none", label=name) for name in names]
        figure.legend(handles=shapes, loc="outside lower right", frameon=False)
    return figure


def _by_number(name: str) -> list[str | int]:
    """Orders resnet8_w8 before resnet8_w16."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
