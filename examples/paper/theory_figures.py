"""Figures of the linear theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from diet_lightning.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


ROUNDING = 1e-16  # lower gaps, including negative ones, are rounding errors of float64


def linear_training(
    inputs: ArrayLike, weight: ArrayLike, cluster_sizes: Sequence[int], gaps: Mapping[str, ArrayLike]
) -> Figure:
    """Clustered data, the rows of W learnt from them, and training losses above their optimum (DIET, Figure 4).

    Args:
        inputs: Samples in the clusters' order, shape ``(N, d)``.
        weight: W, in the same order, shape ``(N, D)``.
        cluster_sizes: Samples in each cluster; lines part the clusters.
        gaps: Name of a run → its loss minus the closed-form optimum, in nats, shape ``(steps + 1,)``; drawn as at least
            1e-16.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    data, rows, losses = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    for axis, values, title, unit in (
        (data, inputs, "data X", "input dimension"),
        (rows, weight, "learnt W", "embedding dimension"),
    ):
        table = np.asarray(values, float)
        bound = np.abs(table).max()
        image = axis.imshow(table, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=axis, pad=0.03)
        _part(axis, cluster_sizes, "black")
        axis.set_title(title)
        axis.set_xlabel(unit)
    data.set_ylabel("sample n")
    rows.set_ylabel("class n")
    for colour, (name, given) in zip(COLOURS * len(gaps), gaps.items(), strict=False):
        losses.plot(np.maximum(np.asarray(given, float), ROUNDING), color=colour, label=name)
    losses.axhline(1e-7, color="0.4", linestyle="--", linewidth=1)
    losses.annotate("1e-7", (1, 1e-7), (-2, 3), losses.get_yaxis_transform(), "offset points", ha="right", color="0.4")
    losses.set_yscale("log")
    losses.yaxis.set_major_locator(LogLocator(numticks=9))
    losses.yaxis.set_minor_locator(NullLocator())
    losses.set_ylim(bottom=ROUNDING / 3)
    losses.set_title("training loss above its optimum")
    losses.set_xlabel("step")
    losses.set_ylabel("loss − closed form (nats)")
    figure.legend(loc="outside lower right", ncols=len(gaps), frameon=False)  # where no curve is
    losses.grid(alpha=0.3)
    losses.spines[["top", "right"]].set_visible(False)
    return figure


def block_matrices(cases: Mapping[str, tuple[ArrayLike, ArrayLike]], cluster_sizes: Sequence[Sequence[int]]) -> Figure:
    """The matrix A that training finds beside the closed form (DIET, Figure 5).

    Args:
        cases: Name → learnt and optimal A, each of shape ``(N, N)``: the classes' shares (rows) by sample (columns).
        cluster_sizes: Cluster sizes of each case; lines separate the clusters.

    Returns:
        The figure, with one row per case.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.7 * len(cases)), layout="constrained")
    places = figure.subplots(len(cases), 2, squeeze=False)
    for (name, pair), sizes, axes in zip(cases.items(), cluster_sizes, places, strict=True):
        learnt, optimal = (np.asarray(each, float) for each in pair)
        top = optimal.max()
        for axis, matrix, title in ((axes[0], learnt, "learnt"), (axes[1], optimal, "closed form")):
            image: AxesImage = axis.imshow(matrix, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            _part(axis, sizes, "white", columns=True)
            axis.set_title(f"{title}: {name}")
            axis.set_xlabel("sample n")
        axes[0].set_ylabel("class n")
        figure.colorbar(image, ax=list(axes), shrink=0.8, label="share of the class in the softmax")
    return figure


def _part(axis: Axes, sizes: Sequence[int], colour: str, columns: bool = False) -> None:
    """Lines between the clusters, and whole numbers at the edges."""
    from matplotlib.ticker import MaxNLocator

    for edge in np.cumsum(sizes)[:-1] - 0.5:
        axis.axhline(edge, color=colour, linewidth=0.8)
        if columns:
            axis.axvline(edge, color=colour, linewidth=0.8)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(integer=True))
