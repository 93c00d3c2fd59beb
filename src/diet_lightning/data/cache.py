"""Decoded images in files of bytes that are mapped into memory: decoded once, of any number."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.images import ImageDataset
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.utilities.files import partial_of, read_json, require_writable, write_json
from diet_lightning.utilities.row_store import DONE, META, RowStore
from diet_lightning.utilities.threads import map_threaded

FORMAT = 2
COLUMNS = ("images", "labels")  # bytes (N, C, H, W) and int64 (N,)
DROPPED = "dropped.json"  # index → reason, of the images without a row
BLOCK = 256  # images that are written together
LABEL = 8  # bytes of an int64
FULL = (errno.ENOSPC, errno.EDQUOT)


class MappedDataset(ArrayDataset):
    """Images and labels mapped from files; other processes map them again instead of copying them.

    Args:
        images: File of N·C·H·W bytes.
        labels: File of N int64.
        shape: ``(N, C, H, W)``.
        origin: As for `ArrayDataset`.
    """

    def __init__(self, images: Path, labels: Path, shape: tuple[int, ...], origin: SampleDataset | None = None) -> None:
        self._files = (images, labels, shape)
        # shared: a large private mapping counts as writable memory and can exceed the system's limit
        super().__init__(
            torch.from_file(str(images), shared=True, size=_count(shape), dtype=torch.uint8).reshape(shape),
            torch.from_file(str(labels), shared=True, size=shape[0], dtype=torch.int64),
            origin,
        )

    def needs_workers(self, memory: float) -> bool:
        """True if the mapped files are larger than the memory, since they are then read from the disk."""
        return self.nbytes > memory

    def loaded(self, in_memory: bool) -> ArrayDataset:
        """A copy in memory if `in_memory`, else the mapped data set."""
        if in_memory:
            return ArrayDataset(self.inputs.clone(), self.labels, self.origin).loaded(in_memory)
        return MappedDataset(*self._files, self.kept_origin())

    def __reduce__(self) -> tuple[Any, ...]:
        """The state that a loader process gets: the names of the files."""
        return type(self), self._files


@dataclass(frozen=True)
class CachedSplit:
    """A split as it was opened.

    Attributes:
        data: The decoded images; their `origin` has their names.
        dropped: One line for each unreadable image that was left out.
    """

    data: MappedDataset
    dropped: list[str]


class ImageCache:
    """A folder that keeps the decoded images of a source, split by split.

    An entry is a `RowStore`, the folder ``SPLIT``. While it is written it is called ``.SPLIT.partial``, and decoding resumes
    where an interrupted run stopped. Other processes wait.

    Args:
        folder: The folder; created if it does not exist.
        source: Name of the source; entries of another source raise an error.

    Raises:
        ConfigurationError: If the folder cannot be written.
    """

    def __init__(self, folder: str | Path, source: str) -> None:
        self.given, self.folder, self.source = folder, Path(folder).expanduser(), source
        with require_writable(f"Folder cache='{folder}'", "cache"):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError("no write permission")

    def open(self, dataset: ImageDataset, split: str, drop_unreadable: bool = False) -> CachedSplit:
        """The decoded images of a split, which are decoded into the folder if it does not hold them.

        Args:
            dataset: The split.
            split: Its name.
            drop_unreadable: Leave out images that cannot be read.

        Returns:
            The split.

        Raises:
            ConfigurationError: If the folder holds images of another source.
            DataError: If an image cannot be read, or the disk is full; then the images decoded so far are removed.
        """
        entry = _Entry(self.folder, split)
        wanted = {
            "format": FORMAT,
            "source": self.source,
            "fingerprint": _key(dataset, drop_unreadable),
            "num_images": len(dataset),
        }
        with FileLock(self.folder / f".{split}.lock"):
            found = entry.read()
            if found is None or found["fingerprint"] != wanted["fingerprint"]:
                self._check_replaceable(found, split)
                self._decode(dataset, entry, wanted, drop_unreadable)
        dropped = _dropped(entry.path)
        kept = dataset.subset([n for n in range(len(dataset)) if str(n) not in dropped]) if dropped else dataset
        return CachedSplit(entry.open(kept), list(dropped.values()))

    def _check_replaceable(self, found: dict[str, Any] | None, split: str) -> None:
        if found is None:
            return
        if found["source"] != self.source:
            raise ConfigurationError(
                f"Folder cache='{self.folder}' holds the {split} split of {found['source']!r}, not of {self.source!r}: choose "
                "another `cache`, or delete it."
            )
        rank_zero_info(
            f"The {split} split of {self.source!r} differs from the one in '{self.folder}': decoding it again."
        )

    def _decode(self, dataset: ImageDataset, entry: _Entry, wanted: dict[str, Any], drop_unreadable: bool) -> None:
        sample = _first_readable(dataset, drop_unreadable)
        RowStore.prepare(entry.partial, (*COLUMNS, DROPPED), {**wanted, "shape": list(sample.shape)})
        left = (len(dataset) - (entry.partial / DONE).stat().st_size) * (sample.numel() + LABEL)
        free = shutil.disk_usage(entry.folder).free + _bytes(entry.path)
        if left > free:
            raise DataError(_full(entry.folder, f"{left:,} bytes are needed, {free:,} are left"))
        shutil.rmtree(entry.path, ignore_errors=True)
        store = RowStore(entry.partial, COLUMNS)
        try:
            self._append(dataset, entry, store, tuple(sample.shape), drop_unreadable)
        except OSError as error:
            if error.errno not in FULL:
                raise
            shutil.rmtree(entry.partial)
            raise DataError(_full(entry.folder, str(error.strerror))) from error
        finally:
            store.close()
        entry.partial.rename(entry.path)

    @staticmethod
    def _append(
        dataset: ImageDataset, entry: _Entry, store: RowStore, shape: tuple[int, ...], drop_unreadable: bool
    ) -> None:
        def read(index: int) -> tuple[Tensor, int] | str:
            try:
                image, label = dataset.read(index)
            except DataError as error:
                if not drop_unreadable:
                    raise
                return dataset.describe(index, error)
            dataset.check_size(index, image, shape)
            return image, label

        def write() -> None:
            images, labels = zip(*block, strict=True)
            rows = np.arange(done, done + len(block))
            store.write(rows, images=torch.stack(images).numpy(), labels=np.array(labels, np.int64))
            store.flush()

        done, dropped = len(store.done()), _dropped(entry.partial)
        first = done
        for index in sorted(map(int, dropped)):  # those before the next row
            first += index <= first
        block: list[tuple[Tensor, int]] = []
        for index, item in enumerate(map_threaded(read, len(dataset), f"decoding {entry.split} images", first), first):
            if isinstance(item, str):
                dropped[str(index)] = item
                write_json(entry.partial / DROPPED, dropped)  # before a later row is marked as done
                continue
            block.append(item)
            if len(block) == BLOCK:
                write()
                done, block = done + len(block), []
        if block:
            write()


class _Entry:
    """The folders of a finished split and of one that is being written."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split, self.path = folder, split, folder / split
        self.partial = partial_of(self.path)

    def read(self) -> dict[str, Any] | None:
        """The description of a finished entry; None if it does not exist or its files are incomplete."""
        found = read_json(self.path / META, or_none=True)
        if not isinstance(found, dict):
            return None
        if found.get("format") != FORMAT or not self._is_whole(found):
            rank_zero_warn(f"The {self.split} split in '{self.folder}' is damaged: decoding it again.")
            return None
        return found

    def _is_whole(self, found: dict[str, Any]) -> bool:
        count = found["num_images"] - len(_dropped(self.path))
        sizes = {"images": count * _count(found["shape"]), "labels": count * LABEL, DONE: count}
        return all(
            (self.path / name).is_file() and (self.path / name).stat().st_size == size for name, size in sizes.items()
        )

    def open(self, origin: SampleDataset) -> MappedDataset:
        """The mapped images, with the data set that they were decoded from."""
        shape = ((self.path / DONE).stat().st_size, *read_json(self.path / META)["shape"])
        return MappedDataset(self.path / "images", self.path / "labels", shape, origin)


def _dropped(folder: Path) -> dict[str, str]:
    """Index → reason, of the images that were left out."""
    return read_json(folder / DROPPED, or_none=True) or {}


def _bytes(folder: Path) -> int:
    """Bytes of the files in a folder, which are freed when it is removed."""
    return sum(path.stat().st_size for path in folder.glob("*"))


def _first_readable(dataset: ImageDataset, drop_unreadable: bool) -> Tensor:
    for index in range(len(dataset)):
        try:
            return dataset.read(index)[0]
        except DataError:
            if not drop_unreadable or index + 1 == len(dataset):
                raise
    raise DataError("Expected images, but the split is empty.")


def _count(shape: Any) -> int:
    return int(torch.Size(shape).numel())


def _key(dataset: ImageDataset, drop_unreadable: bool) -> str:
    return dataset.content_key(f" {drop_unreadable}")


def _full(folder: Path, detail: str) -> str:
    return (
        f"The disk of cache='{folder}' is full ({detail}): choose a `cache` with more room, or a smaller `image_size`."
    )
