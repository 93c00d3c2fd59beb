"""Embeddings while they are computed: rows on the disk, written by any number of processes, whole after a kill."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from diet_lightning.embeddings.formats import Array, Column, write_columns
from diet_lightning.errors import ConfigurationError
from diet_lightning.utilities.files import partial_of, read_json, write_json

META = "meta.json"
FILES = ("features", "labels", "done")  # float32 (N, K), int64 (N,), one byte a sample: plain numbers, no header
FLUSH_SECONDS = 5.0
CHUNK = 2**23  # bytes that are copied at once


class PartialEmbeddings:
    """A folder beside the output file that keeps the rows computed so far.

    The files are written at offsets, not mapped: a full disk is then an error where it would be a signal, and what was
    written is no memory of the process. Rows are on the disk before they are marked as done.

    Args:
        file: The output file.

    Raises:
        ConfigurationError: If the folder cannot be opened; all processes need to see it.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.folder = file, partial_of(file)
        self.dim = 0  # K, known from the first rows
        self._unmarked: list[Array] = []
        self._flushed = time.monotonic()
        with _told(file):
            self._features, self._labels, self._done = (self._path(name).open("r+b") for name in FILES)

    @staticmethod
    def prepare(file: Path, identity: Mapping[str, Any] | None) -> tuple[FileLock, bool]:
        """Makes the folder, or keeps it where it holds work on the same; for one process, before all open it.

        Args:
            file: The output file.
            identity: Values as JSON keeps them that say what is computed; None where nobody knows.

        Returns:
            The lock on the folder, to hold until the end, and whether other work was thrown away.

        Raises:
            ConfigurationError: If it cannot be written, or another process works on it.
        """
        folder = partial_of(file)
        with _told(file):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise ConfigurationError(
                    f"Embeddings '{file}' are being written by another process: wait for it, or choose another path."
                ) from error
            files = [folder / name for name in FILES]
            found = read_json(folder / META)
            if found is not None and found == identity and all(path.exists() for path in files):
                return lock, False
            discarded = any(path.exists() for path in files)
            (folder / META).unlink(missing_ok=True)
            for path in files:
                path.write_bytes(b"")
            if identity is not None:  # last, as it vouches for the rest
                write_json(folder / META, identity)
        return lock, discarded

    def _path(self, name: str) -> Path:
        return self.folder / name

    def done(self, count: int | None = None) -> NDArray[np.bool_]:
        """Which samples are computed.

        Args:
            count: N; None for up to the last that is computed.

        Returns:
            Shape ``(N,)``.
        """
        marks = np.fromfile(self._path("done"), np.bool_)
        done = np.zeros(len(marks) if count is None else count, np.bool_)
        done[: len(marks)] = marks[: len(done)]
        return done

    def write(self, features: NDArray[np.float32], index: NDArray[np.int64], label: NDArray[np.int64]) -> None:
        """Writes rows to where their index says.

        Args:
            features: Shape ``(B, K)``.
            index: Shape ``(B,)``, at least 0.
            label: Shape ``(B,)``.

        Raises:
            ConfigurationError: If the disk is full; what is marked as done stays.
        """
        self.dim = features.shape[1]
        with _told(self.file):
            for start, rows in _runs(index):
                self._features.seek(start * self.dim * 4)
                self._features.write(features[rows].astype("<f4").tobytes())
                self._labels.seek(start * 8)
                self._labels.write(label[rows].astype("<i8").tobytes())
        self._unmarked.append(index)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Brings the rows to the disk, then marks them as done.

        Raises:
            ConfigurationError: If the disk is full.
        """
        with _told(self.file):
            for stream in (self._features, self._labels):
                stream.flush()
                os.fsync(stream.fileno())
            for index in self._unmarked:
                for start, rows in _runs(index):
                    self._done.seek(start)
                    self._done.write(b"\1" * len(rows))
            self._done.flush()
        self._unmarked.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Lets go of the files."""
        for stream in (self._features, self._labels, self._done):
            with suppress(OSError):  # a full disk, of rows that are not marked as done
                stream.close()

    def finish(self, names: Sequence[str] | None) -> int:
        """Writes the output file and removes the folder; for one process, when all have flushed.

        Args:
            names: A name for each sample, or None.

        Returns:
            The number of rows.

        Raises:
            ConfigurationError: If the file cannot be written, or exists by now; the folder is kept.
        """
        new = self.folder / f"output{self.file.suffix}"
        count = int(self.done().sum())
        with _told(self.file):
            write_columns(new, self._columns(names))
            with new.open("rb") as stream:
                os.fsync(stream.fileno())
            refuse_existing(self.file)
            new.replace(self.file)
            self.close()
            shutil.rmtree(self.folder)
        return count

    def _columns(self, names: Sequence[str] | None) -> dict[str, Column]:
        rows = np.flatnonzero(self.done())
        step = max(1, CHUNK // (self.dim * 4))
        pieces = np.split(rows, np.flatnonzero(np.diff(rows // step)) + 1)

        def column(dtype: str, give: Callable[[Array], Array], *width: int) -> Column:
            return Column(np.dtype(dtype), (len(rows), *width), lambda: map(give, pieces))

        columns = {
            "features": column("<f4", lambda piece: self._stored("features", "<f4", piece, self.dim), self.dim),
            "index": column("<i8", lambda piece: piece.astype("<i8")),
            "label": column("<i8", lambda piece: self._stored("labels", "<i8", piece)),
        }
        if names is not None:
            dtype = f"<U{max(len(names[row]) for row in rows.tolist()) or 1}"
            columns["path"] = column(dtype, lambda piece: np.array([names[row] for row in piece.tolist()], dtype))
        return columns

    def _stored(self, name: str, dtype: str, rows: Array, *width: int) -> Array:
        """Rows of a file, of which the last is not far from the first."""
        shape, first = (-1, *width), rows[0]
        size = int(np.prod(width, dtype=np.int64))
        count, offset = int(rows[-1] - first + 1) * size, int(first) * size * np.dtype(dtype).itemsize
        values = np.fromfile(self._path(name), dtype, count, offset=offset).reshape(shape)
        chosen: Array = values[rows - first]
        return chosen


def refuse_existing(file: Path) -> None:
    """Never writes over a file.

    Args:
        file: The output file.

    Raises:
        ConfigurationError: If it exists.
    """
    if file.exists():
        raise ConfigurationError(f"Output file '{file}' exists: move it, or choose another path.")


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"Embeddings '{file}' cannot be written ({error.strerror or error}): make room there, or choose another path, on "
            "a disk that all processes see; rows that were computed are kept beside it, and the same command goes on."
        ) from error


def _runs(index: Array) -> Iterator[tuple[int, Array]]:
    """Where each run of successive indices begins, and its rows: most batches are one run."""
    order = np.argsort(index, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(index[order]) != 1) + 1):
        yield int(index[rows[0]]), rows
