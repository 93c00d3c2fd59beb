"""Image files with a label each: as paths, and as images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset

from diet_lightning.data.fingerprint import file_digests
from diet_lightning.data.image_formats import HEIF_ENDINGS, register_heif
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.metadata import relative_name


class ImageFiles(Dataset[tuple[str, int]]):
    """Image files with a label each.

    Args:
        paths: The files, in the order of their indices.
        labels: One label per file, -1 for files without one, shape ``(N,)``.
        root: Folder to which names are relative, so that a moved folder keeps its fingerprint.
    """

    def __init__(self, paths: Sequence[str | Path], labels: ArrayLike, root: str | Path) -> None:
        self.paths = [os.fspath(path) for path in paths]  # as text, since millions of `Path` need gigabytes
        self.labels = np.asarray(labels, dtype=np.int64)
        self.root = root

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, int]:
        """The file and its label."""
        path = self.paths[index]
        if path.lower().endswith(HEIF_ENDINGS):
            register_heif()  # once in every process
        return path, int(self.labels[index])

    @property
    def names(self) -> list[str]:
        """Relative path of every file."""
        return [self.name(n) for n in range(len(self))]

    def name(self, index: int) -> str:
        """Relative path of a file."""
        return relative_name(self.paths[index], self.root)

    def sample_digests(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Digests of all bytes of some files, shape ``(n, 16)``; zero for a file that cannot be read."""
        return file_digests([self.paths[n] for n in indices], self.root)


class ImageFileDataset(ImageDataset):
    """`ImageDataset` of files: messages name the file, and a renamed file is noticed."""

    items: ImageFiles
    num_headers = 1024

    def name_of(self, index: int) -> str:
        """`` (path)``."""
        return f" ({self.items.paths[self.keep[index]]})"

    def fingerprint_parts(self) -> list[bytes] | None:
        """Also the names of the files."""
        names = (self.items.name(n) for n in self.keep)
        return [*(super().fingerprint_parts() or ()), "\0".join(names).encode()]
