"""Digests of the content of samples: of the bytes of files, of the rows of arrays."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diet_lightning.data.digest_store import DIGEST, kept_digests
from diet_lightning.transforms.convert import tensor_bytes
from diet_lightning.utilities.threads import map_threaded

READ = 2**18  # bytes that are read at once
ROWS = 256  # rows that a thread hashes at once
FILES = 1024  # files whose times a thread reads at once
UNREADABLE = bytes(DIGEST)


def content_digest(content: bytes | memoryview) -> bytes:
    """16 bytes that identify some bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


def file_digests(paths: Sequence[str | Path], root: str | Path) -> NDArray[np.uint8]:
    """A digest of all bytes of each file.

    Digests are kept between runs, see `kept_digests`: of files that have not changed, only size and times are read.

    Args:
        paths: The files.
        root: Folder of the data, by which the digests are kept.

    Returns:
        Shape ``(N, 16)``; zero for a file that cannot be read.
    """
    texts = [os.fspath(path) for path in paths]
    read_at = time.time_ns()
    prefix = os.path.join(root, "")  # noqa: PTH118
    names = b"".join(hashlib.blake2b(os.fsencode(text.removeprefix(prefix)), digest_size=8).digest() for text in texts)
    return kept_digests(
        os.path.realpath(root),
        np.frombuffer(names, "<u8"),
        file_stamps(texts),
        read_at,
        lambda rows: computed_digests(lambda n: _file_digest(texts[rows[n]]), len(rows), "hashing files"),
    )


def computed_digests(function: Callable[[int], bytes], count: int, description: str) -> NDArray[np.uint8]:
    """Digests that threads compute, with a bar.

    Args:
        function: Digests of the item or items of an index, 16 bytes each.
        count: Number of indices.
        description: Text of the bar.

    Returns:
        Shape ``(n, 16)``.
    """
    joined = b"".join(map_threaded(function, count, description))
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST)


def file_stamps(paths: Sequence[str]) -> NDArray[np.int64]:
    """Size in bytes and times of the last change of content and of status in nanoseconds, of each file.

    Args:
        paths: The files.

    Returns:
        Shape ``(N, 3)``; -1 for a missing file.
    """

    def read(block: int) -> NDArray[np.int64]:
        return np.array([_stamp(path) for path in paths[block * FILES : (block + 1) * FILES]], np.int64)

    blocks = map_threaded(read, -(-len(paths) // FILES), "looking for changed files")
    return np.concatenate([np.empty((0, 3), np.int64), *blocks])


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _file_digest(path: str) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST)
    try:
        with Path(path).open("rb", buffering=0) as stream:
            while block := stream.read(READ):
                digest.update(block)
    except OSError:
        return UNREADABLE
    return digest.digest()


def row_digests(rows: Any) -> NDArray[np.uint8]:
    """A digest of the bytes of each row.

    Args:
        rows: A tensor or array, shape ``(N, ...)``.

    Returns:
        Shape ``(N, 16)``.
    """

    def hash_block(block: int) -> bytes:
        part = rows[block * ROWS : (block + 1) * ROWS]
        content = memoryview(
            tensor_bytes(part) if isinstance(part, torch.Tensor) else np.ascontiguousarray(part).tobytes()
        )
        size = len(content) // len(part)
        return b"".join(content_digest(content[n * size : (n + 1) * size]) for n in range(len(part)))

    return computed_digests(hash_block, -(-len(rows) // ROWS), "hashing samples")
