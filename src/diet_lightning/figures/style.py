"""Colours, markers and output of all figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # Okabe and Ito's palette, distinguishable with colour blindness
DPI = 150
MARKERS = "os^DvP*X<>ph"


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG with a white background, so that it is also readable on a dark page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor="white")
