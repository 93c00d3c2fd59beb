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
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.images import ImageDataset
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.transforms.ragged import from_flat
from diet_lightning.utilities.files import partial_of, read_json, require_writable, write_json
from diet_lightning.utilities.row_store import DONE, META, RowStore
from diet_lightning.utilities.threads import map_threaded

FORMAT = 3
COLUMNS = ("images", "sizes", "labels")  # bytes, one image after another; heights and widths int32 (N, 2); int64 (N,)
DROPPED = "dropped.json"  # index → reason, of the images without a row
BLOCK = 256  # images that are written together
ROW = 16  # bytes of a size and a label
FULL = (errno.ENOSPC, errno.EDQUOT)


class MappedDataset(ArrayDataset):
    """Images and labels mapped from files; other processes map them again instead of copying them.

    Args:
        folder: Folder of an entry of `ImageCache`.
        channels: Channels of the images.
        origin: As for `ArrayDataset`.
    """

    def __init__(self, folder: Path, channels: int, origin: SampleDataset | None = None) -> None:
        self._stored = (folder, channels)
        sizes = _sizes(folder)
        # shared: a large private mapping counts as writable memory and can exceed the system's limit
        flat = torch.from_file(
            str(folder / "images"), shared=True, size=_num_pixels(sizes) * channels, dtype=torch.uint8
        )
        labels = torch.from_file(str(folder / "labels"), shared=True, size=len(sizes), dtype=torch.int64)
        super().__init__(from_flat(flat, torch.from_numpy(sizes), channels), labels, origin)

    def needs_workers(self, memory: float) -> bool:
        """True if the mapped files are larger than the memory, since they are then read from the disk."""
        return self.nbytes > memory

    def loaded(self, in_memory: bool) -> ArrayDataset:
        """A copy in memory if `in_memory`, else the mapped data set."""
        if in_memory:
            return ArrayDataset(self.inputs[torch.arange(len(self))], self.labels, self.origin).loaded(in_memory)
        return MappedDataset(*self._stored, self.kept_origin())

    def __reduce__(self) -> tuple[Any, ...]:
        """The state that a loader process gets: the names of the files."""
        return type(self), self._stored


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
        RowStore.prepare(entry.partial, (*COLUMNS, DROPPED), {**wanted, "channels": len(sample)})
        share = 1 - (entry.partial / DONE).stat().st_size / len(dataset)
        left = round(share * (dataset.estimate_bytes(sample) + len(dataset) * ROW))
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
        offset = _num_pixels(_sizes(entry.partial)) * shape[0]

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
            nonlocal offset
            for image, _ in block:
                store.write_at("images", offset, image.numpy())
                offset += image.numel()
            sizes = np.array([image.shape[1:] for image, _ in block], np.int32)
            labels = np.array([label for _, label in block], np.int64)
            store.write(np.arange(done, done + len(block)), sizes=sizes, labels=labels)
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
        files = {name: self.path / name for name in (*COLUMNS, DONE)}
        if not all(path.is_file() for path in files.values()) or files[DONE].stat().st_size != count:
            return False
        pixels = _num_pixels(_sizes(self.path)) * found["channels"]
        expected = {"images": pixels, "sizes": count * 8, "labels": count * 8}
        return all(files[name].stat().st_size == size for name, size in expected.items())

    def open(self, origin: SampleDataset) -> MappedDataset:
        """The mapped images, with the data set that they were decoded from."""
        return MappedDataset(self.path, read_json(self.path / META)["channels"], origin)


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


def _sizes(folder: Path) -> NDArray[np.int64]:
    """Height and width of each image that is done, ``(n, 2)``."""
    count = (folder / DONE).stat().st_size
    return np.fromfile(folder / "sizes", np.int32)[: 2 * count].reshape(-1, 2).astype(np.int64)


def _num_pixels(sizes: NDArray[np.int64]) -> int:
    return int(sizes.prod(axis=1).sum())


def _key(dataset: ImageDataset, drop_unreadable: bool) -> str:
    return dataset.content_key(f" {drop_unreadable}")


def _full(folder: Path, detail: str) -> str:
    return (
        f"The disk of cache='{folder}' is full ({detail}): choose a `cache` with more room, or a smaller `image_size`."
    )
