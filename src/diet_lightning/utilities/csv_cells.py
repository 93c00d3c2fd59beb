"""Cells of CSV files that a spreadsheet does not run as formulas."""

from __future__ import annotations

from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> Any:
    """A value as it is written to a CSV file: text that a spreadsheet would run as a formula begins with ``'``.

    Args:
        value: Text, or a value of another type, which is returned unchanged.

    Returns:
        The value of the cell.

    Example:
        >>> csv_cell("=1+1.png"), csv_cell("cat"), csv_cell(-1)
        ("'=1+1.png", 'cat', -1)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
