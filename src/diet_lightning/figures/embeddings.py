"""Figures of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from diet_lightning.errors import ConfigurationError
from diet_lightning.figures.style import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def embedding_map(points: ArrayLike, labels: ArrayLike, names: Sequence[str], method: str = "PCA") -> Figure:
    """Embeddings in two dimensions, coloured by label.

    Args:
        points: Shape ``(N, 2)``.
        labels: Shape ``(N,)``; samples without a label (-1) are drawn in gray.
        names: Names of the labels.
        method: Name of the projection, for the title.

    Returns:
        The figure; each label is written at the median of its points, and up to ten labels are listed in a legend.
    """
    from matplotlib import colormaps

    xy, given = np.asarray(points, float), np.asarray(labels)
    classes = np.unique(given[given >= 0])
    colours = colormaps["tab10" if len(classes) <= 10 else "gist_rainbow"]
    figure, axis = new_figure(7, 6)
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
    axis.set(xticks=[], yticks=[], xlabel=f"{method} 1", ylabel=f"{method} 2")
    return figure


def spectrum(curves: Mapping[str, ArrayLike]) -> Figure:
    """Draws singular values ``(r,)`` by name, descending, relative to the largest; if they fall steeply, few dimensions are used."""
    figure, axis = new_figure(7, 3.8, grid=True)
    for colour, (name, given) in zip(COLOURS * len(curves), curves.items(), strict=False):
        values = np.asarray(given, float)
        axis.plot(np.arange(1, len(values) + 1), values / max(values[0], 1e-300), color=colour, label=name)
    axis.set_yscale("log")
    # lower values are rounding errors
    axis.set_ylim(bottom=max(1e-6, min(np.min(given) / max(np.max(given), 1e-300) for given in curves.values()) / 2))
    axis.set(xlabel="dimension", ylabel="singular value / largest", title="Spectrum of the embeddings")
    axis.legend(frameon=False)
    return figure


def confusion(counts: ArrayLike, names: Sequence[str]) -> Figure:
    """Draws counts ``(C, C)`` by true class (rows) and predicted class: shares of each row, up to 20 classes also in per cent."""
    table = np.asarray(counts, float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.45 * len(table) + 2.2, 4, 12))
    figure, axis = new_figure(side + 0.8, side)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(table) <= 20:
        is_long = max(map(len, names)) > 3
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
        axis.set_xticks(range(len(table)), names, **turn)
        axis.set_yticks(range(len(table)), names)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    right = np.trace(table) / max(table.sum(), 1)
    axis.set(xlabel="predicted", ylabel="true", title=f"Linear probe, {right:.1%} right")
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the true class")
    return figure


def neighbour_gallery(rows: Sequence[Sequence[ArrayLike]], notes: Sequence[Sequence[str]]) -> Figure:
    """Draws a row for each sample: its image, ``(H, W)`` or ``(H, W, 3)``, uint8, and its neighbours', each below a note."""
    columns = max(len(row) for row in rows)
    figure, axes = new_figure(1.05 * columns + 0.2, 1.25 * len(rows) + 0.5, len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for line, words, place in zip(rows, notes, axes, strict=True):
        for column, (picture, word) in enumerate(zip(line, words, strict=True)):
            pixels = np.asarray(picture)
            place[column].imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, interpolation="nearest")
            place[column].set_title(word, fontsize=7, pad=2, fontweight="bold" if column == 0 else "normal")
    figure.suptitle("First of each row: a test sample; then its nearest training samples", fontsize=9)
    return figure


def load_umap() -> Any:
    """The umap package; raises a ConfigurationError if it is missing."""
    try:
        import umap
    except ImportError as error:
        raise ConfigurationError(
            "A map by UMAP needs the umap-learn package: pip install 'diet-lightning[umap]'."
        ) from error
    return umap
