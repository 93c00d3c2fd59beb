"""Figure 2: accuracies over a setting, with the seeds as points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from diet_lightning.figures.style import COLOURS, MARKERS, new_figure


def curves_of_seeds(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    ylabel: str,
    xlabel: str | None = None,
    logarithmic: Sequence[str] = (),
) -> Figure:
    """Accuracies over a setting, a panel for each: the mean over seeds as a line, the seeds as points (DIET, Figure 2).

    Args:
        panels: Name of a panel → name of a curve → value of the setting → accuracies in [0, 1], one per seed.
        ylabel: Label of the vertical axis, in per cent.
        xlabel: The setting; None takes the name of each panel.
        logarithmic: The panels with a logarithmic axis.

    Returns:
        The figure; with one panel, the curves are named in it.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 3.6 * columns + (3.4 if columns == 1 else 0), 3.1 * rows + (1.2 if rows == 1 else 0)
    figure, axes = new_figure(width, height, rows, columns, grid=True, squeeze=False, sharey=True)
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
        if len(curves) > 1:
            axis.legend(frameon=False, loc="lower right")
    for axis in axes[:, 0]:
        axis.set_ylabel(ylabel)
    return figure
