"""Tables of text: rows, header and separator."""

from __future__ import annotations

import csv
import io
import itertools
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from diet_lightning.errors import DataError

DELIMITERS = ",;\t|"
SEPARATORS = "commas, semicolons, tabs or '|'"
CHECKED_ROWS = 20  # from which the delimiter and a column of paths are found


class Table(NamedTuple):
    """Rows of a file.

    Attributes:
        file: The file.
        header: Names of the columns; empty without a header.
        rows: Cells of the rows below the header.
        lines: The line in which each row ends.
    """

    file: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def cells(self, column: int) -> list[str]:
        """The cells of a column, without spaces around them.

        Raises:
            DataError: If a row is too short.
        """
        for row, line in zip(self.rows, self.lines, strict=True):
            if len(row) <= column:
                raise DataError(
                    f"Line {line} of table '{self.file}' has {len(row)} column(s), but column {self.title(column)} is read: "
                    "complete the line."
                )
        return [row[column].strip() for row in self.rows]

    def title(self, column: int) -> str:
        """Name of a column, or its number without a header."""
        return repr(self.header[column]) if self.header else str(column + 1)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.header or self.rows[0])


def read_table(file: str, folder: str) -> Table:
    """Reads a table; lines that begin with ``#`` and name no file are comments.

    Args:
        file: The file.
        folder: Folder to which its paths are relative.

    Raises:
        DataError: If it cannot be read, is empty, or a row has more cells than the first.
    """
    try:
        data = Path(file).read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        delimiter = max(DELIMITERS, key=lambda each: _width(text, each))  # the first of several with the same width
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows, lines = [], []
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(
            f"Table '{file}' cannot be read: {error}; save it as comma-separated values in UTF-8."
        ) from error
    rows, lines = _without_comments(rows, lines, folder)
    if not rows:
        raise DataError(f"Table '{file}' is empty: write a line with the path and the label of each image.")
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if any(cell.strip() for cell in row[width:]):
            raise DataError(
                f"Line {line} of table '{file}' has {len(row)} columns, but line {lines[0]} has {width}: write cells that hold "
                f"the separator {delimiter!r} between quotation marks."
            )
    if any(exists(cell, folder) for cell in rows[0]):
        return Table(file, [], rows, lines)
    if len(rows) == 1:
        raise DataError(
            f"Table '{file}' has one line, which names no file below '{folder}': write a line with the path and the label of "
            "each image, with paths relative to the folder of the table."
        )
    return Table(file, [cell.strip() for cell in rows[0]], rows[1:], lines[1:])


def _width(text: str, delimiter: str) -> int:
    """The smallest number of columns in the first rows, comments aside."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    first = list(itertools.islice(filter(any, rows), CHECKED_ROWS))
    return min((len(row) for row in [row for row in first if not _is_comment(row)] or first), default=0)


def _is_comment(row: list[str]) -> bool:
    return row[0].lstrip().startswith("#")


def _without_comments(rows: list[list[str]], lines: list[int], folder: str) -> tuple[list[list[str]], list[int]]:
    """The rows that are no comments; the comment right above rows of paths is their header if it has as many cells."""
    kept = [n for n, row in enumerate(rows) if not _is_comment(row) or exists(row[0], folder)]
    first = kept[0] if kept else 0
    if first and len(rows[first - 1]) == len(rows[first]) > 1 and any(exists(cell, folder) for cell in rows[first]):
        rows[first - 1][0] = rows[first - 1][0].lstrip("# ")
        kept = [first - 1, *kept]
    return [rows[n] for n in kept], [lines[n] for n in kept]


def absolute(cell: str, folder: str) -> str:
    """The path of a cell, possibly a ``file:`` address; a path with backslashes is also tried with slashes."""
    if cell.strip().startswith("file:"):
        cell = url2pathname(urlsplit(cell.strip()).path)
    path = os.path.normpath(os.path.join(folder, cell.strip()))
    return path if "\\" not in cell or os.path.exists(path) else absolute(cell.replace("\\", "/"), folder)


def exists(cell: str, folder: str) -> bool:
    """Whether a cell is the path of a file."""
    return bool(cell.strip()) and "\0" not in cell and os.path.isfile(absolute(cell, folder))
