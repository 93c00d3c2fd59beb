"""What the headers of images show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diet_lightning.data.decoding import Header
from diet_lightning.data.read_config import ReadConfig


def image_notes(headers: Sequence[Header], read: ReadConfig) -> list[str]:
    """One sentence for each decision on the pixels of images.

    Args:
        headers: The images that were looked at.
        read: How they are read.

    Returns:
        The sentences, of transparency, pages, mixed kinds of values and gray images.
    """
    notes = []
    if transparent := sum(header.transparent for header in headers):
        notes.append(
            f"{_share(transparent, headers)} may have transparent pixels, which are composited on {read.background}; set "
            "read.background for another color."
        )
    several = sum(header.pages > 1 for header in headers)
    if several:
        how = (
            "of which the first is read; set read.pages to channels to read all"
            if read.pages == "first"
            else "each of which becomes one channel if it is gray, else three; set read.pages to first to read the first"
        )
        notes.append(f"{_share(several, headers)} have several pages or frames, {how}.")
    are_floats = {header.mode.startswith(("F", "float")) for header in headers if header.wide}
    if len(are_floats) == 2:
        notes.append(
            "Some images of more than 8 bits hold integers and others floats, and one range scales both: store them alike, or "
            "look at them with `diet data` and set read.value_range."
        )
    stacked = several and read.pages == "channels"
    if headers and read.color != "gray" and not stacked and all(header.is_gray for header in headers):
        decided = "get three equal channels; set read.color to gray for one"
        if read.color == "auto":
            decided = "have one channel; set read.color to rgb for three equal ones"
        notes.append(f"All {len(headers)} images looked at are gray and {decided}.")
    return notes


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Up to `limit` evenly spaced numbers of 0 … count-1, in ascending order."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, limit))]


def _share(count: int, headers: Sequence[Header]) -> str:
    return f"{count} of the {len(headers)} images looked at"
