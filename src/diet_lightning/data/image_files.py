"""Image files with a label each: as paths, and as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.fingerprint import file_digests, relative_names
from diet_lightning.data.image_formats import HEIF_ENDINGS, register_heif
from diet_lightning.data.images import ImageDataset


class ImageFiles(Dataset[tuple[str, int]]):
    """Image files with a label each.

    Args:
        paths: The files, in the order of their indices.
        labels: One label per file, -1 for files without one, shape ``(N,)``; None without labels.
        root: Folder to which names are relative, so that a moved folder keeps its fingerprint.
        stamps: Size and times of each file, see `file_stamps`, shape ``(N, 3)``; None reads them when they are needed.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        labels: ArrayLike | None,
        root: str | Path,
        stamps: NDArray[np.int64] | None = None,
    ) -> None:
        self.paths = list(map(str, paths))  # as text, since millions of `Path` need gigabytes
        self.labels = np.full(len(paths), NO_LABEL) if labels is None else np.asarray(labels, dtype=np.int64)
        self.root = root
        self.stamps = stamps

    @property
    def has_labels(self) -> bool:
        """Whether a file has a label."""
        return bool((self.labels != NO_LABEL).any())

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
        return relative_names(self.paths, self.root).decode().split("\0")[1:]

    def sample_digests(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Digests of all bytes of some files, shape ``(n, 16)``; zero for a file that cannot be read."""
        files = self.at(indices)
        return file_digests(files.paths, files.root, files.stamps)

    def at(self, indices: Sequence[int]) -> ImageFiles:
        """The files at some positions."""
        if indices == range(len(self)):  # not copied one by one
            return self
        rows = np.asarray(indices, np.int64)
        stamps = None if self.stamps is None else self.stamps[rows]
        return ImageFiles([self.paths[n] for n in indices], self.labels[rows], self.root, stamps)


class ImageFileDataset(ImageDataset):
    """`ImageDataset` of files: messages name the file, and a renamed file is noticed."""

    items: ImageFiles
    num_headers = 1024

    def name_of(self, index: int) -> str:
        """`` (path)``."""
        return f" ({self.items.paths[self.keep[index]]})"

    def fingerprint_parts(self) -> list[bytes] | None:
        """Also the names of the files."""
        files = self.items.at(self.keep)
        return [*(super().fingerprint_parts() or ()), relative_names(files.paths, files.root)[1:]]
