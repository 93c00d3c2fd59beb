"""``csv:FILE``: a table of the paths of image files, with labels and splits if it has them."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from diet_lightning.data.class_names import number_of
from diet_lightning.data.csv_table import CHECKED_ROWS, SEPARATORS, Table, absolute, exists, read_table
from diet_lightning.data.file_sources import image_file_source
from diet_lightning.data.image_files import ImageFiles
from diet_lightning.data.labels import encode_labels, is_missing
from diet_lightning.data.path_hints import what_is_wrong
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.split_names import SPLIT_NAMES, split_of
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.utilities.text import first_few

# names of columns in lower case, without spaces, dashes and underscores; the first that a table has is taken
IMAGE_NAMES = (
    *("path", "imagepath", "imgpath", "filepath", "filename", "imagefile", "imagefilename", "imagename", "file"),
    *("image", "img", "relativepath", "relpath", "imageid"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classname", "category", "categoryname", "target", "labelname", "classlabel"),
    *("classid", "labelid", "categoryid", "species", "diagnosis"),
)
SPLIT_COLUMNS = ("split", "subset", "partition", "set")


class _Columns(NamedTuple):
    """Positions of the columns that are read."""

    image: int
    label: int | None
    split: int | None


def csv_source(path: str, options: SourceOptions) -> Source:
    """Image files from a table with a column of paths, relative to its folder, and columns of labels and splits."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"Source table {path!r} {what_is_wrong(file, 'a table of paths and labels')}")
    folder = os.path.dirname(os.path.abspath(file))
    table = read_table(str(file), folder)
    columns = _columns(table, folder, options.read)
    paths = _paths(table, columns.image, folder)
    notes = [_columns_note(table, columns)]
    labels, rows = _labels(table, columns.label, notes), _rows_of_splits(table, columns.split)
    encoded = encode_labels({split: labels and [labels[n] for n in each] for split, each in rows.items()})
    inside = all(each.startswith(os.path.join(folder, "")) for each in paths)
    root = folder if inside else os.path.commonpath([os.path.dirname(each) for each in paths])
    files = {split: ImageFiles([paths[n] for n in each], encoded.labels[split], root) for split, each in rows.items()}
    return image_file_source(files, encoded.class_names, [*notes, *encoded.notes], options)


def _columns(table: Table, folder: str, read: ReadConfig) -> _Columns:
    """The columns of paths, labels and splits, by their names or what they hold."""
    image = _chosen(table, "image_column", read.image_column, IMAGE_NAMES)
    if image is None:
        sample = table.rows[:CHECKED_ROWS]
        held = [n for n in range(table.width) if all(len(row) > n and exists(row[n], folder) for row in sample)]
        if len(held) != 1:
            raise DataError(
                f"Table '{table.file}' has the columns {_titles(table, range(table.width))}, of which "
                f"{'several hold' if held else 'none holds'} paths of files below '{folder}': name one 'path', or set "
                f"read.image_column. Columns are separated by {SEPARATORS}."
            )
        image = held[0]
    label = _chosen(table, "label_column", read.label_column, LABEL_NAMES, {image})
    split = _split_column(table, {image, label})
    rest = [n for n in range(table.width) if n not in (image, split)]
    if label is None and len(rest) == 1:
        label = rest[0]
    return _Columns(image, label, split)


def _chosen(
    table: Table, option: str, name: str | None, known: Iterable[str], taken: Container[int] = ()
) -> int | None:
    """The column of the name that was asked for, else the first of the known names.

    Raises:
        ConfigurationError: If the table does not have the column that was asked for.
    """
    if name is not None:
        found = [n for n, title in enumerate(table.header) if title == name]
        found = found or [n for n, title in enumerate(table.header) if _plain(title) == _plain(name)]
        if len(found) != 1:
            held = _titles(table, range(table.width)) if table.header else "no header"
            raise ConfigurationError(
                f"Expected argument `read.{option}` to name a column of '{table.file}', which has {held}, but got {name!r}."
            )
        return found[0]
    titles = {_plain(title): n for n, title in reversed([*enumerate(table.header)]) if n not in taken}
    return next((titles[each] for each in known if each in titles), None)


def _split_column(table: Table, taken: Container[int | None]) -> int | None:
    """The column whose cells are all names of splits; with a header, it is named after splits too."""
    named = [n for n in range(table.width) if not table.header or _plain(table.header[n]) in SPLIT_COLUMNS]
    for column in named:
        if column in taken:
            continue
        if table.header and _plain(table.header[column]) == "split":
            return column
        if all(len(row) > column and split_of(row[column]) for row in table.rows):
            return column
    return None


def _plain(title: str) -> str:
    return re.sub(r"[\W_]+", "", title.lower())


def _titles(table: Table, columns: Iterable[int]) -> str:
    return f"[{first_few(map(table.title, columns))}]"


def _columns_note(table: Table, columns: _Columns) -> str:
    said = [f"column {table.title(columns.image)} of '{table.file}' as images"]
    said += [] if columns.label is None else [f"{table.title(columns.label)} as labels"]
    said += [] if columns.split is None else [f"{table.title(columns.split)} as splits"]
    rest = [n for n in range(table.width) if n not in columns]
    others = f" to another of {_titles(table, rest)}" if rest else ""
    labels = ", without labels" if columns.label is None else ""
    return f"Read {', '.join(said)}{labels}; set read.image_column and read.label_column{others} to read other columns."


def _paths(table: Table, column: int, folder: str) -> list[str]:
    """The files.

    Raises:
        DataError: If one is missing or named twice.
    """
    cells = table.cells(column)
    missing = [(cell, line) for cell, line in zip(cells, table.lines, strict=True) if not exists(cell, folder)]
    if missing:
        raise DataError(
            f"Table '{table.file}' names {len(missing):,} file(s) that do not exist, the first in line {missing[0][1]}: "
            f"{missing[0][0]!r}; write paths relative to '{folder}', with their endings."
        )
    paths = [absolute(cell, folder) for cell in cells]
    first: dict[str, int] = {}
    again = [n for n, path in enumerate(paths) if first.setdefault(path, n) != n]
    if again:
        raise DataError(
            f"Table '{table.file}' names {len(again):,} file(s) more than once, the first in line {table.lines[again[0]]}: "
            f"{cells[again[0]]!r}; keep one line per image, since DIET distinguishes images."
        )
    return paths


def _labels(table: Table, column: int | None, notes: list[str]) -> list[Any] | None:
    """The label of each row, None without one; integers as texts without a fraction. Tells how many rows have none."""
    if column is None:
        return None
    cells: list[Any] = [None if is_missing(cell) else cell for cell in table.cells(column)]
    numbers = [None if cell is None else number_of(cell) for cell in cells]
    if numbers.count(None) == (count := cells.count(None)):
        spellings: dict[Any, dict[str, None]] = {}
        for cell, number in zip(cells, numbers, strict=True):
            spellings.setdefault(number, {})[str(cell)] = None
        if same := [" and ".join(map(repr, each)) for each in spellings.values() if len(each) > 1]:
            notes.append(
                f"Labels of '{table.file}' that are the same number are one class: {first_few(same)}; add a letter to labels that "
                "are not numbers."
            )
        cells = [str(int(n)) if n is not None and n == int(n) else n for n in numbers]
        cells = [None if cell is None or is_missing(cell) else cell for cell in cells]
        count = cells.count(None)
    if count:
        notes.append(
            f"{count:,} of the {len(cells):,} rows of '{table.file}' have no label; fill in column {table.title(column)} to give "
            "them one."
        )
    return cells


def _rows_of_splits(table: Table, column: int | None) -> dict[str, list[int]]:
    """Split → its rows.

    Raises:
        DataError: If a value is not the name of a split, or no row is for training.
    """
    if column is None:
        return {"train": list(range(len(table.rows)))}
    rows: dict[str, list[int]] = {split: [] for split in SPLIT_NAMES}
    for n, cell in enumerate(table.cells(column)):
        split = split_of(cell)
        if split is None:
            raise DataError(
                f"Expected train, val or test in column {table.title(column)} of '{table.file}', but got {cell!r} in line "
                f"{table.lines[n]}: correct it, or rename the column to read all rows for training."
            )
        rows[split].append(n)
    if not rows["train"]:
        raise DataError(
            f"Column {table.title(column)} of '{table.file}' gives no row to the split train: correct it, or rename the column "
            "to read all rows for training."
        )
    return {split: found for split, found in rows.items() if found}
