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


def curves_of_seeds(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    ylabel: str,
    xlabel: str | None = None,
    logarithmic: Sequence[str] = (),
) -> Figure:
    """Accuracies over a setting, a panel for each: the mean over seeds as a line, the seeds as points (DIET, Figure 2).

    Args:
        panels: Name of a panel → name of a curve → value of the setting → accuracies in [0, 1], one a seed.
        ylabel: What was measured, with its unit, per cent.
        xlabel: The setting; None takes each panel's name.
        logarithmic: The panels whose settings lie on a logarithmic scale.

    Returns:
        The figure; with one panel, the curves are named in it.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (3.6 * columns + (3.4 if columns == 1 else 0), 3.1 * rows + (1.2 if rows == 1 else 0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for (name, curves), axis in zip(panels.items(), axes.flat, strict=False):
        for colour, marker, (label, points) in zip(COLOURS, MARKERS, curves.items(), strict=False):
            settings = sorted(points)
            axis.plot(settings, [100 * np.mean(points[x]) for x in settings], color=colour, label=label, zorder=2)
            for x in settings:
                values = 100 * np.asarray(points[x], float)
                axis.plot([x] * len(values), values, marker, color=colour, alpha=0.6, markeredgewidth=0, zorder=3)
        if name in logarithmic:
            axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        ticks = sorted({x for points in curves.values() for x in points})
        axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axis.set_xlabel(name if xlabel is None else xlabel)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axis.legend(frameon=False, loc="lower right")
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    return figure


def embedding_map(points: ArrayLike, labels: ArrayLike, names: Sequence[str], method: str = "PCA") -> Figure:
    """Embeddings in two dimensions, coloured by label.

    Args:
        points: Shape ``(N, 2)``.
        labels: Shape ``(N,)``, -1 where there is none: drawn in gray.
        names: Of the labels.
        method: How the points came about, for the title.

    Returns:
        The figure; up to ten labels are named in a legend, and each is written at the median of its points.
    """
    xy, given = np.asarray(points, float), np.asarray(labels)
    classes = np.unique(given[given >= 0])
    colours = colormaps["tab10" if len(classes) <= 10 else "gist_rainbow"]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    size = float(np.clip(4000 / len(xy), 3, 25))
    axis.scatter(xy[given < 0, 0], xy[given < 0, 1], s=size, color="0.7", linewidths=0)
    for place, label in enumerate(classes):
        colour = colours(place if len(classes) <= 10 else place / len(classes))
        own = xy[given == label]
        name = names[label] if label < len(names) else str(label)
        axis.scatter(own[:, 0], own[:, 1], s=size, color=colour, alpha=0.7, linewidths=0, label=name)
        if len(classes) <= 20:
            box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "boxstyle": "round,pad=0.2"}
            axis.annotate(name, np.median(own, axis=0), ha="center", va="center", fontsize=8, bbox=box)
    axis.set_title(f"Embeddings of {len(xy):,} samples, {method}")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(f"{method} 1")
    axis.set_ylabel(f"{method} 2")
    return figure


def spectrum(curves: Mapping[str, ArrayLike]) -> Figure:
    """Singular values of embeddings, each curve relative to its greatest: a steep fall means few dimensions in use.

    Args:
        curves: Name → singular values, falling, shape ``(r,)``.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axis = figure.subplots()
    for colour, (name, given) in zip(COLOURS * len(curves), curves.items(), strict=False):
        values = np.asarray(given, float)
        axis.plot(np.arange(1, len(values) + 1), values / max(values[0], 1e-300), color=colour, label=name)
    axis.set_yscale("log")
    # what lies lower is rounding
    axis.set_ylim(bottom=max(1e-6, min(np.min(given) / max(np.max(given), 1e-300) for given in curves.values()) / 2))
    axis.set_xlabel("dimension")
    axis.set_ylabel("singular value / the greatest")
    axis.set_title("Spectrum of the embeddings")
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def confusion(counts: ArrayLike, names: Sequence[str]) -> Figure:
    """What a classifier takes each class for.

    Args:
        counts: Test samples by true class (rows) and predicted class (columns), shape ``(C, C)``.
        names: Of the classes.

    Returns:
        The figure: shares of each row, as a colour and up to 20 classes in per cent.
    """
    table = np.asarray(counts, float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.45 * len(table) + 2.2, 4, 12))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(table) <= 20:
        turn: dict[str, Any] = (
            {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
        )
        axis.set_xticks(range(len(table)), names, **turn)
        axis.set_yticks(range(len(table)), names)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(f"Linear probe, {np.trace(table) / max(table.sum(), 1):.1%} right")
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the true class")
    return figure


def neighbour_gallery(rows: Sequence[Sequence[ArrayLike]], notes: Sequence[Sequence[str]]) -> Figure:
    """Samples with their nearest neighbours beside them.

    Args:
        rows: Of each sample its own image, then its neighbours', ``(H, W)`` or ``(H, W, 3)``, uint8.
        notes: A word below each image, such as its label.

    Returns:
        The figure, a sample a row.
    """
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.05 * columns + 0.2, 1.25 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for line, words, place in zip(rows, notes, axes, strict=True):
        for column, (picture, word) in enumerate(zip(line, words, strict=True)):
            pixels = np.asarray(picture)
            place[column].imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, interpolation="nearest")
            place[column].set_title(word, fontsize=7, pad=2, fontweight="bold" if column == 0 else "normal")
    figure.suptitle("First of each row: a test sample; then its nearest training samples", fontsize=9)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG on a white ground, so that it also reads on a dark page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
