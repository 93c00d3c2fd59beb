"""Colours, markers, size and output of all figures; matplotlib is imported when one is drawn, as it takes half a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinguishable with colour blindness
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DPI = 150
MARKERS = "os^DvP*X<>ph"


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, grid: bool = False, **options: Any
) -> tuple[Figure, Any]:
    """An empty figure, `width` by `height` inches, and its axes as `Figure.subplots` returns them, which takes the `options`.

    `grid` draws a light grid, without a frame at the top and the right.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    if grid:
        for axis in figure.axes:
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG with a white background, so that it is also readable on a dark page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white")
