"""The rows of embeddings that `predict` has computed, in a folder beside the output file, resumed after a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from diet_lightning.embeddings.formats import CLASS_NAMES, Array, write_arrays
from diet_lightning.errors import ConfigurationError
from diet_lightning.utilities.files import partial_of
from diet_lightning.utilities.row_store import RowStore

COLUMNS = ("features", "label")  # float32 (N, K) and int64 (N,)


def prepare_rows(file: Path, identity: Mapping[str, Any] | None) -> tuple[FileLock, bool]:
    """Prepares the folder of the rows of an output file and locks it; for one process, before all open it.

    `identity` is as of `RowStore.prepare`.

    Returns:
        The lock, to hold until the end, and whether rows of another computation were discarded.

    Raises:
        ConfigurationError: If the folder cannot be written, or another process writes it.
    """
    folder = partial_of(file)
    with writing(file):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigurationError(
                f"Embeddings '{file}' are being written by another process: wait for it, or choose another path."
            ) from error
        return lock, RowStore.prepare(folder, COLUMNS, identity)


def finish_rows(
    file: Path, rows: RowStore, dim: int, names: Sequence[str] | None, class_names: Sequence[str] | None = None
) -> int:
    """Writes the output file of embeddings ``(N, dim)``, removes the folder and returns N; for one process, after all flushed.

    Raises:
        ConfigurationError: If the file cannot be written, or exists already; the folder is kept.
    """
    done = rows.done()
    index = np.flatnonzero(done)
    features, label = rows.column("features", np.float32, (dim,)), rows.column("label", np.int64)
    if not done.all():  # then they are few, and copied into memory
        features, label = features[index], label[index]
    arrays: dict[str, Array] = {"features": features, "index": index, "label": label}
    if names is not None:
        arrays["path"] = np.array([names[row] for row in index.tolist()], np.str_)
    if class_names is not None:
        arrays[CLASS_NAMES] = np.array([str(name) for name in class_names], np.str_)
    new = rows.folder / f"output{file.suffix}"
    with writing(file):
        write_arrays(new, arrays)
        with new.open("rb") as stream:
            os.fsync(stream.fileno())
        refuse_existing(file)
        new.replace(file)
        rows.close()
        shutil.rmtree(rows.folder)
    return len(index)


def refuse_existing(file: Path) -> None:
    """Raises a `ConfigurationError` if the output file exists."""
    if file.exists():
        raise ConfigurationError(f"Output file '{file}' exists: move it, or choose another path.")


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Raises errors of the disk as a `ConfigurationError` that names the output file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"Embeddings '{file}' cannot be written ({reason}): make room there, or choose another path, on "
            "a disk that all processes see; the computed rows are kept beside it, and the same command resumes."
        ) from error
