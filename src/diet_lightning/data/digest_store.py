"""Digests that are kept between runs, each with the size and the times of the file that it was computed from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from diet_lightning.utilities.files import atomic_write

DIGEST = 16  # bytes of a digest
RACY = 2 * 10**9  # nanoseconds; a file this young may be changed again without a visible change of its times
CHECKSUM = 32  # bytes, before the table
FORMAT = b"diet digests 1"
ENTRY = np.dtype([("name", "<u8"), ("stamp", "<i8", 3), ("digest", "u1", DIGEST)])  # sorted by name

Compute = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """Size of a file in bytes, and times of the last change of its content and of its status in nanoseconds."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def kept_digests(
    key: str, names: NDArray[np.uint64], stamps: NDArray[np.int64], read_at: int, compute: Compute
) -> NDArray[np.uint8]:
    """Digests of items, computed for those only that are new or changed since an earlier run.

    They are kept in the user's cache folder, ``$XDG_CACHE_HOME`` or ``~/.cache``. If it cannot be read or written, all are
    computed. Of several processes one computes while the others wait.

    Args:
        key: Names the table, such as the folder of the data.
        names: Identifies each item in the table, shape ``(N,)``.
        stamps: The stamp of each item's file, see `stamp_of`, shape ``(N, 3)``.
        read_at: A time after reading the stamps and before reading any content, in nanoseconds.
        compute: Digests of the items at some positions, shape ``(n, 16)``; all zero for one without digest.

    Returns:
        Shape ``(N, 16)``.
    """
    trusted = stamps[:, 1:].max(axis=1, initial=0) < read_at - RACY
    with _locked(_file_of(key)) as file:
        table = np.empty(0, ENTRY) if file is None else _load(file)
        digests, known = _look_up(table, names, stamps)
        if not known.all():
            missing = np.flatnonzero(~known)
            digests[missing] = compute(missing)
            found = missing[trusted[missing] & digests[missing].any(axis=1)]
            if file is not None and len(found):
                _save(file, _merge(table, names[found], stamps[found], digests[found]))
    return digests


def _file_of(key: str) -> Path | None:
    """The file of a table; None without a home folder."""
    name = hashlib.blake2b(os.fsencode(key), digest_size=DIGEST).hexdigest()
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(cache, "diet_lightning", name)


@contextmanager
def _locked(file: Path | None) -> Iterator[Path | None]:
    """Waits until no other process has the file; yields None where that is impossible."""
    lock = None
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file.with_suffix(".lock"))
            lock.acquire()
        except (OSError, NotImplementedError):  # not writable, or a file system without locks
            lock = None
    try:
        yield None if lock is None else file
    finally:
        if lock is not None:
            lock.release()


def _look_up(
    table: NDArray[np.void], names: NDArray[np.uint64], stamps: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Digests, zero where unknown, shape ``(N, 16)``, and which are known, shape ``(N,)``."""
    digests = np.zeros((len(names), DIGEST), np.uint8)
    if not len(table):
        return digests, np.zeros(len(names), np.bool_)
    # a column of its own, since the others would fill the processor's cache
    at = np.searchsorted(np.ascontiguousarray(table["name"]), names).clip(max=len(table) - 1)
    known = (table["name"][at] == names) & (table["stamp"][at] == stamps).all(axis=1)
    digests[known] = table["digest"][at[known]]
    return digests, known


def _merge(
    table: NDArray[np.void], names: NDArray[np.uint64], stamps: NDArray[np.int64], digests: NDArray[np.uint8]
) -> NDArray[np.void]:
    """The table with new entries in place of those of the same name."""
    names, first = np.unique(np.concatenate([names, table["name"]]), return_index=True)
    merged = np.empty(len(names), ENTRY)
    merged["name"] = names
    merged["stamp"] = np.concatenate([stamps, table["stamp"]])[first]
    merged["digest"] = np.concatenate([digests, table["digest"]])[first]
    return merged


def _load(file: Path) -> NDArray[np.void]:
    """The table in a file, empty if it is missing, damaged or of another format."""
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    stored = memoryview(content)[CHECKSUM:]
    return np.frombuffer(stored if content[:CHECKSUM] == _checksum(stored) else b"", ENTRY)


def _save(file: Path, table: NDArray[np.void]) -> None:
    stored = memoryview(table.view(np.uint8))  # type: ignore[arg-type]
    try:
        with atomic_write(file) as partial, partial.open("wb") as stream:
            stream.write(_checksum(stored))
            stream.write(stored)
    except OSError:  # a full disk costs the time of the next run only
        return


def _checksum(stored: bytes | memoryview) -> bytes:
    return hashlib.blake2b(stored, digest_size=CHECKSUM, person=FORMAT).digest()
