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

from diet_lightning.data.digest_store import DIGEST, kept_digests, stamp_of
from diet_lightning.transforms.convert import tensor_bytes
from diet_lightning.utilities.text import decodable
from diet_lightning.utilities.threads import map_threaded

READ = 2**18  # bytes that are read at once
ROWS = 256  # rows that a thread hashes at once
FILES = 64  # files that a thread takes at once, since handing over a small one takes longer than hashing it
UNREADABLE = bytes(DIGEST)


def content_digest(content: bytes | memoryview) -> bytes:
    """16 bytes that identify some bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


def relative_names(paths: Sequence[str | Path], root: str | Path) -> bytes:
    """The paths relative to a folder, of files outside of it the whole, in one text, since lists take seconds for millions.

    Args:
        paths: The files.
        root: The folder.

    Returns:
        Each name after a zero byte, in UTF-8, with ``/`` between folders; bytes outside the encoding are escaped.
    """
    joined = "\0".join(["", *map(str, paths)])
    folder = os.path.join(root, "")  # noqa: PTH118
    return decodable(joined.replace(f"\0{folder}", "\0").replace(os.sep, "/")).encode()


def file_digests(
    paths: Sequence[str | Path], root: str | Path, stamps: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    """A digest of all bytes of each file.

    Digests are kept between runs, see `kept_digests`: of files that have not changed, only size and times are read.

    Args:
        paths: The files.
        root: Folder of the data, by which the digests are kept.
        stamps: Size and times of the files, see `file_stamps`; None reads them.

    Returns:
        Shape ``(N, 16)``; zero for a file that cannot be read.
    """
    stamps = file_stamps(paths) if stamps is None else stamps
    read_at = time.time_ns()
    names = relative_names(paths, root).split(b"\0")[1:]
    numbers = np.frombuffer(b"".join([hashlib.blake2b(name, digest_size=8).digest() for name in names]), "<u8")
    del names  # 100 MB of a million files
    return kept_digests(
        os.path.realpath(root),
        numbers,
        stamps,
        read_at,
        lambda rows: computed_digests(lambda n: _file_digest(paths[rows[n]]), len(rows), "hashing files", FILES),
    )


def computed_digests(
    function: Callable[[int], bytes], count: int, description: str, block: int = 1
) -> NDArray[np.uint8]:
    """Digests that threads compute, with a bar.

    Args:
        function: Digests of the item or items of an index, 16 bytes each.
        count: Number of indices.
        description: Text of the bar.
        block: Number of indices that a thread takes at once.

    Returns:
        Shape ``(n, 16)``.
    """
    joined = bytearray()
    for found in map_threaded(function, count, description, block=block):
        joined += found
    return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST)


def file_stamps(paths: Sequence[str | Path]) -> NDArray[np.int64]:
    """Size and times of each file, see `stamp_of`.

    Args:
        paths: The files.

    Returns:
        Shape ``(N, 3)``; -1 for a missing file.
    """

    def read(n: int) -> tuple[int, int, int]:
        try:
            return stamp_of(os.stat(paths[n]))  # noqa: PTH116
        except OSError:
            return -1, -1, -1

    found = map_threaded(read, len(paths), "looking for changed files", block=FILES)
    return np.fromiter(found, np.dtype((np.int64, 3)), len(paths))


def _file_digest(path: str | Path) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST)
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # half the time of a file object for small files
        try:
            while content := os.read(file, READ):
                digest.update(content)
        finally:
            os.close(file)
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
