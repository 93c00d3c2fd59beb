"""Storage of embeddings during `predict`: rows in a folder beside the output file, resumed after a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError

from diet_lightning.embeddings.formats import CLASS_NAMES, write_arrays
from diet_lightning.errors import ConfigurationError
from diet_lightning.utilities.files import partial_of
from diet_lightning.utilities.row_store import RowStore

COLUMNS = ("features", "label")  # float32 (N, K) and int64 (N,)


class PartialEmbeddings(RowStore):
    """The folder beside the output file that keeps the rows computed so far.

    Args:
        file: The output file.

    Raises:
        ConfigurationError: If the folder cannot be opened; all processes need to see it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.dim = 0  # K, known from the first rows
        with _as_configuration_error(file):
            super().__init__(partial_of(file), COLUMNS)

    @staticmethod
    def lock(file: Path, identity: Mapping[str, Any] | None) -> tuple[FileLock, bool]:
        """Prepares the folder and locks it; for one process, before all open it.

        Args:
            file: The output file.
            identity: JSON values that identify the computation; None if it is unknown.

        Returns:
            The lock on the folder, to hold until the end, and whether rows of another computation were discarded.

        Raises:
            ConfigurationError: If it cannot be written, or another process writes it.
        """
        folder = partial_of(file)
        with _as_configuration_error(file):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise ConfigurationError(
                    f"Embeddings '{file}' are being written by another process: wait for it, or choose another path."
                ) from error
            return lock, RowStore.prepare(folder, COLUMNS, identity)

    def write(self, index: NDArray[np.int64], **columns: NDArray[Any]) -> None:
        """Writes rows; see `RowStore.write`.

        Raises:
            ConfigurationError: If the disk is full; rows that are marked as done stay.
        """
        self.dim = columns["features"].shape[1]
        with _as_configuration_error(self.file):
            super().write(index, **columns)

    def flush(self) -> None:
        """Flushes the rows to the disk, then marks them as done.

        Raises:
            ConfigurationError: If the disk is full.
        """
        with _as_configuration_error(self.file):
            super().flush()

    def finish(self, names: Sequence[str] | None, class_names: Sequence[str] | None = None) -> int:
        """Writes the output file and removes the folder; called in one process, after all have flushed.

        Args:
            names: A name for each sample, or None.
            class_names: Names of the labels, or None.

        Returns:
            The number of rows.

        Raises:
            ConfigurationError: If the file cannot be written, or exists already; the folder is kept.
        """
        new = self.folder / f"output{self.file.suffix}"
        index = np.flatnonzero(self.done()).astype(np.int64)
        arrays = {"features": self.column("features", np.float32, (self.dim,)), "label": self.column("label", np.int64)}
        if len(index) != len(self.done()):  # small beside the features, and copied into memory
            arrays = {name: array[index] for name, array in arrays.items()}
        arrays = {"features": arrays["features"], "index": index, "label": arrays["label"]}
        if names is not None:
            arrays["path"] = np.array([names[row] for row in index.tolist()], np.str_)
        if class_names is not None:
            arrays[CLASS_NAMES] = np.array([str(name) for name in class_names], np.str_)
        with _as_configuration_error(self.file):
            write_arrays(new, arrays)
            with new.open("rb") as stream:
                os.fsync(stream.fileno())
            refuse_existing(self.file)
            new.replace(self.file)
            self.close()
            shutil.rmtree(self.folder)
        return len(index)


def refuse_existing(file: Path) -> None:
    """Raises an error if the output file exists.

    Args:
        file: The output file.

    Raises:
        ConfigurationError: If it exists.
    """
    if file.exists():
        raise ConfigurationError(f"Output file '{file}' exists: move it, or choose another path.")


@contextmanager
def _as_configuration_error(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"Embeddings '{file}' cannot be written ({reason}): make room there, or choose another path, on "
            "a disk that all processes see; the computed rows are kept beside it, and the same command resumes."
        ) from error
