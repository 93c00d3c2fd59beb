"""Figures: arrays in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # Okabe and Ito: safe for colour-blind eyes


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
    axes[0].set_title("DIET: training loss above its floor" + (", and linear probe" if accuracies else ""))
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


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG on a white ground, so that it also reads on a dark page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
