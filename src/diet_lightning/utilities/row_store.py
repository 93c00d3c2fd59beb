"""Arrays on disk that several processes write row by row and resume after a kill."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diet_lightning.utilities.files import read_json, write_json

META = "meta.json"
DONE = "done"  # one byte per row
FLUSH_SECONDS = 5.0


class RowStore:
    """A folder with one file of plain numbers per column: row n begins at n times the size of a row.

    Written at offsets and not through ``np.lib.format.open_memmap``, where a full disk ends the process by a signal instead of
    raising an error. Rows are flushed to the disk before they are marked as done.

    Args:
        folder: The folder, which `prepare` has made; all processes need access to it.
        columns: Names of the columns.
    """

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self.folder = folder
        self._done = (folder / DONE).open("r+b")
        self._files = {name: (folder / name).open("r+b") for name in columns}
        self._unmarked: list[NDArray[np.int64]] = []
        self._flushed = time.monotonic()

    @staticmethod
    def prepare(folder: Path, columns: Sequence[str], identity: Mapping[str, Any] | None) -> bool:
        """Makes the folder, or keeps it if its rows have the same identity; called in one process, before all open it.

        Args:
            folder: The folder.
            columns: Names of the columns.
            identity: JSON values that identify the rows; None if unknown.

        Returns:
            Whether rows of another identity were discarded.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / name for name in (*columns, DONE)]
        found = read_json(folder / META, or_none=True)
        if found is not None and found == identity and all(path.exists() for path in files):
            return False
        discarded = any(path.exists() for path in files)
        (folder / META).unlink(missing_ok=True)
        for path in files:
            path.write_bytes(b"")
        if identity is not None:  # last, since it marks the folder as complete
            write_json(folder / META, identity)
        return discarded

    def done(self, count: int | None = None) -> NDArray[np.bool_]:
        """Which of `count` rows are done, shape ``(count,)``; None for the rows up to the last one that is done."""
        marks = np.fromfile(self.folder / DONE, np.bool_)
        done = np.zeros(len(marks) if count is None else count, np.bool_)
        done[: len(marks)] = marks[: len(done)]
        return done

    def column(self, name: str, dtype: type[np.generic], shape: Sequence[int] = ()) -> NDArray[Any]:
        """A column of rows of a dtype and shape up to the last one that is done, mapped from the disk, read-only."""
        return np.memmap(self.folder / name, dtype, "r", shape=(len(self.done()), *shape))

    def write(self, index: NDArray[np.int64], **columns: NDArray[Any]) -> None:
        """Writes rows at the positions of their indices, and flushes every few seconds.

        Args:
            index: Shape ``(B,)``, at least 0.
            **columns: Rows of each column, shape ``(B, ...)``.

        Raises:
            OSError: If the disk is full; rows that are marked as done stay.
        """
        for start, rows in _runs(index):
            for name, values in columns.items():
                self._files[name].seek(start * values[:1].nbytes)
                self._files[name].write(values[rows].tobytes())
        self._unmarked.append(index)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def write_at(self, name: str, offset: int, values: NDArray[Any]) -> None:
        """Writes values of a column whose rows differ in size, in bytes from its start; before the rows are marked by `write`."""
        self._files[name].seek(offset)
        self._files[name].write(values.tobytes())

    def flush(self) -> None:
        """Flushes the rows to the disk, then marks them as done; raises an error as `write`."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        for index in self._unmarked:
            for start, rows in _runs(index):
                self._done.seek(start)
                self._done.write(b"\1" * len(rows))
        self._done.flush()
        self._unmarked.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the files."""
        for file in (*self._files.values(), self._done):
            with suppress(OSError):  # a full disk; these rows are not marked as done
                file.close()


def _runs(index: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Start and rows of each run of successive indices; most batches are a single run."""
    order = np.argsort(index, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(index[order]) != 1) + 1):
        yield int(index[rows[0]]), rows
