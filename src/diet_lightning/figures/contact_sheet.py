"""The contact sheet: pairs of pictures, clean and augmented."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from diet_lightning.figures.style import DPI, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS = 4  # pairs of a row
CELL = 1.35  # inches, the width of a picture
GAP = 0.12  # width of the gap between two pairs, as a fraction of a picture's
TITLE = 24  # characters above a picture


def contact_sheet(
    clean: NDArray[Any], augmented: NDArray[Any], titles: Sequence[str], names: Sequence[str], heading: str
) -> Figure:
    """Draws pairs of pictures, four to a row.

    Args:
        clean: ``(n, H, W)`` or ``(n, H, W, 3)`` in [0, 1].
        augmented: Of the same shape.
        titles: Class of each pair, above its clean picture; "" without one.
        names: Name of each pair, above its augmented picture where the other has a class.
        heading: Text above all.

    Returns:
        The figure; its axes are clean and augmented in turn.
    """
    from matplotlib.figure import Figure

    count, height, width = clean.shape[:3]
    rows, columns = -(-count // PAIRS), min(PAIRS, count)
    aspect = min(3.0, max(1 / 3, height / width))
    size = (columns * (2 + GAP) * CELL + 0.3, rows * (aspect * CELL + 0.3) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.0, rect=(0.01, 0.01, 0.98, 0.98))
    figure.suptitle(heading, fontsize=9, parse_math=False)
    grid = figure.add_gridspec(rows, 3 * columns - 1, width_ratios=[*[1, 1, GAP] * (columns - 1), 1, 1])
    style: dict[str, Any] = {"fontsize": 7, "pad": 2, "parse_math": False}
    # pixels of small images are seen as they are, and large images made smaller without aliasing
    drawn: dict[str, Any] = {"interpolation": "nearest" if width < CELL * DPI else "antialiased"}
    for n in range(count):
        row, column = divmod(n, PAIRS)
        pair = [figure.add_subplot(grid[row, 3 * column + k]) for k in (0, 1)]
        for axis, picture in zip(pair, (clean[n], augmented[n]), strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, **drawn)
            axis.set_axis_off()
        if titles[n]:
            pair[0].set_title(_shortened(titles[n]), loc="left", fontweight="bold", **style)
        named = bool(titles[n])
        pair[named].set_title(_shortened(names[n]), loc="right" if named else "left", color="0.35", **style)
    return figure


def save_contact_sheet(figure: Figure, path: Path) -> None:
    """Writes the sheet as PNG; characters that the font lacks are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        save_figure(figure, path)


def _shortened(title: str) -> str:
    """A title without its middle, if it is long."""
    return title if len(title) <= TITLE else f"{title[: TITLE // 2]}…{title[-(TITLE // 2 - 1) :]}"
