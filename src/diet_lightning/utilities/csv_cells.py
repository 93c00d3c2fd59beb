"""CSV files whose cells a spreadsheet does not run as formulas."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diet_lightning.utilities.files import atomic_write

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> Any:
    """A value as it is written to a CSV file: text that a spreadsheet would run as a formula begins with ``'``.

    Example:
        >>> csv_cell("=1+1.png"), csv_cell("cat"), csv_cell(-1)
        ("'=1+1.png", 'cat', -1)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def write_csv(file: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes columns of equal length by name, atomically, with the cells of `csv_cell`."""
    with atomic_write(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(map(csv_cell, row) for row in zip(*columns.values(), strict=True))
