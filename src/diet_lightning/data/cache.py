"""Decoded images in files of bytes, mapped into memory: decoded once, read at memory speed, whatever their number."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from diet_lightning.data.dataset import ArrayDataset, SampleDataset
from diet_lightning.data.images import ImageDataset, map_threaded
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.utilities.files import read_json, write_json

FORMAT = 1
BLOCK = 256  # images after which the progress is written down
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
        # shared, as a private mapping would count as memory that may be written to, and a large one be refused
        super().__init__(
            torch.from_file(str(images), shared=True, size=_count(shape), dtype=torch.uint8).reshape(shape),
            torch.from_file(str(labels), shared=True, size=shape[0], dtype=torch.int64),
            origin,
        )

    def needs_workers(self, memory: float) -> bool:
        """A mapped file that memory does not hold is read from the disk, which takes time as decoding does."""
        return self.nbytes > memory

    def loaded(self, in_memory: bool) -> ArrayDataset:
        """Copied into memory where it is to be there, else mapped."""
        if in_memory:
            return ArrayDataset(self.inputs.clone(), self.labels, self.origin).loaded(in_memory)
        return MappedDataset(*self._files, self.kept_origin())

    def __reduce__(self) -> tuple[Any, ...]:
        """What a loader's process gets: the names of the files."""
        return type(self), self._files


@dataclass(frozen=True)
class CachedSplit:
    """A split as it was opened.

    Attributes:
        data: The decoded images; their origin knows their names.
        dropped: One line for each unreadable image that was left out.
    """

    data: MappedDataset
    dropped: list[str]


class ImageCache:
    """A folder that keeps the decoded images of a source, split by split.

    An entry is ``SPLIT.images`` and ``SPLIT.labels``, plain bytes, and ``SPLIT.json``, which says what they hold and comes
    last. While it is written it is called ``.partial``, and an interrupted run resumes it. Other processes wait.

    Args:
        folder: The folder; made where it does not exist.
        source: Name of the source, which the entries must be of.

    Raises:
        ConfigurationError: If the folder cannot be written.
    """

    def __init__(self, folder: str | Path, source: str) -> None:
        self.given, self.folder, self.source = folder, Path(folder).expanduser(), source
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "no write permission")
        except OSError as error:
            raise ConfigurationError(
                f"Folder cache='{folder}' cannot be written ({error.strerror}): choose another `cache`."
            ) from error

    def open(self, dataset: ImageDataset, split: str, drop_unreadable: bool = False) -> CachedSplit:
        """The decoded images of a split, from the folder where it has them, else decoded into it.

        Args:
            dataset: The split.
            split: Its name.
            drop_unreadable: Leave out what cannot be read.

        Returns:
            The split.

        Raises:
            ConfigurationError: If the folder holds another source's images.
            DataError: If an image cannot be read, or the disk is full; what was decoded of the latter is removed.
        """
        entry = _Entry(self.folder, split)
        wanted = {
            "format": FORMAT,
            "source": self.source,
            "fingerprint": _key(dataset, drop_unreadable),
        }
        with FileLock(self.folder / f".{split}.lock"):
            found = entry.read()
            if found is None or found["fingerprint"] != wanted["fingerprint"]:
                self._check_replaceable(found, split)
                found = self._decode(dataset, entry, wanted, drop_unreadable)
        dropped = found["dropped"]
        kept = dataset.subset([n for n in range(len(dataset)) if str(n) not in dropped]) if dropped else dataset
        return CachedSplit(entry.open(found, kept), list(dropped.values()))

    def _check_replaceable(self, found: dict[str, Any] | None, split: str) -> None:
        if found is None:
            return
        if found["source"] != self.source:
            raise ConfigurationError(
                f"Folder cache='{self.folder}' holds the {split} split of {found['source']!r}, not of {self.source!r}: choose "
                "another `cache`, or delete it."
            )
        rank_zero_info(
            f"The {split} split of {self.source!r} is not what '{self.folder}' holds of it: decoding it again."
        )

    def _decode(
        self, dataset: ImageDataset, entry: _Entry, wanted: dict[str, Any], drop_unreadable: bool
    ) -> dict[str, Any]:
        sample = _first_readable(dataset, drop_unreadable)
        if sample.dtype != torch.uint8:
            raise ConfigurationError(
                f"Expected argument `cache` to be None for inputs of {sample.dtype}: it keeps images of 8 bits."
            )
        state = entry.progress({**wanted, "shape": list(sample.shape), "dropped": {}, "done": 0})
        left = (len(dataset) - state["done"]) * (sample.numel() + LABEL)
        free = shutil.disk_usage(entry.folder).free + entry.held
        if left > free:
            raise DataError(_full(entry.folder, f"{left:,} bytes are needed, {free:,} are left"))
        entry.remove()
        try:
            with entry.partial_images.open("ab") as images, entry.partial_labels.open("ab") as labels:
                self._append(dataset, entry, state, images, labels, drop_unreadable)
        except OSError as error:
            if error.errno not in FULL:
                raise
            entry.remove_partial()
            raise DataError(_full(entry.folder, str(error.strerror))) from error
        return entry.finish(state)

    @staticmethod
    def _append(
        dataset: ImageDataset,
        entry: _Entry,
        state: dict[str, Any],
        images: BinaryIO,
        labels: BinaryIO,
        drop_unreadable: bool,
    ) -> None:
        def read(index: int) -> tuple[Tensor, int] | str:
            try:
                image, label = dataset.read(index)
            except DataError as error:
                if not drop_unreadable:
                    raise
                return dataset.describe(index, error)
            dataset.check_size(index, image, tuple(state["shape"]))
            return image, label

        first, count = state["done"], len(dataset)
        for index, item in enumerate(map_threaded(read, count, f"decoding {entry.split} images", first), first):
            if isinstance(item, str):
                state["dropped"][str(index)] = item
            else:
                images.write(item[0].contiguous().numpy().tobytes())
                labels.write(int(item[1]).to_bytes(LABEL, "little", signed=True))
            if (index + 1) % BLOCK == 0 or index + 1 == count:
                for file in (images, labels):
                    file.flush()
                    os.fsync(file.fileno())
                state["done"] = index + 1
                entry.write_progress(state)


class _Entry:
    """The files of a split."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.images, self.labels, self.meta = (folder / f"{split}.{end}" for end in ("images", "labels", "json"))
        self.partial_images, self.partial_labels, self.partial_meta = (
            path.with_name(f"{path.name}.partial") for path in (self.images, self.labels, self.meta)
        )

    def read(self) -> dict[str, Any] | None:
        """What a finished entry says of itself; None where there is none, or its files are not whole."""
        found = read_json(self.meta)
        if not isinstance(found, dict):
            return None
        sizes = [path.stat().st_size if path.is_file() else -1 for path in (self.images, self.labels)]
        if found.get("format") != FORMAT or sizes != self._sizes(found):
            rank_zero_warn(f"The {self.split} split in '{self.folder}' is damaged: decoding it again.")
            return None
        return found

    def progress(self, fresh: dict[str, Any]) -> dict[str, Any]:
        """How far an interrupted run came with the same images, else `fresh`; the files are cut to that length."""
        found = read_json(self.partial_meta)
        same = isinstance(found, dict) and all(
            found.get(name) == fresh[name] for name in ("fingerprint", "shape", "format")
        )
        state = found if same else fresh
        files = (self.partial_images, self.partial_labels)
        held = [path.stat().st_size if path.is_file() else 0 for path in files]
        if any(size < least for size, least in zip(held, self._sizes(state), strict=True)):
            state = fresh
        for path, size in zip(files, self._sizes(state), strict=True):
            path.touch()
            os.truncate(path, size)
        return state

    @staticmethod
    def _sizes(state: dict[str, Any]) -> list[int]:
        count = state["done"] - len(state["dropped"])
        return [count * _count(state["shape"]), count * LABEL]

    def write_progress(self, state: dict[str, Any]) -> None:
        """Notes what the partial files hold."""
        write_json(self.partial_meta, state)

    def finish(self, state: dict[str, Any]) -> dict[str, Any]:
        """Gives the files their names; the description comes last."""
        self.write_progress(state)
        self.partial_images.replace(self.images)
        self.partial_labels.replace(self.labels)
        self.partial_meta.replace(self.meta)
        return state

    def open(self, state: dict[str, Any], origin: ImageDataset) -> MappedDataset:
        """The mapped images."""
        shape = (state["done"] - len(state["dropped"]), *state["shape"])
        return MappedDataset(self.images, self.labels, shape, origin)

    @property
    def held(self) -> int:
        """Bytes of a finished entry, which `remove` frees."""
        return sum(path.stat().st_size for path in (self.images, self.labels) if path.is_file())

    def remove(self) -> None:
        """Removes a finished entry."""
        for path in (self.meta, self.images, self.labels):
            path.unlink(missing_ok=True)

    def remove_partial(self) -> None:
        """Removes an unfinished entry."""
        for path in (self.partial_meta, self.partial_images, self.partial_labels):
            path.unlink(missing_ok=True)


def _first_readable(dataset: ImageDataset, drop_unreadable: bool) -> Tensor:
    for index in range(len(dataset)):
        try:
            return dataset.read(index)[0]
        except DataError:
            if not drop_unreadable or index + 1 == len(dataset):
                raise
    raise DataError("Expected images, but there are none.")


def _count(shape: Any) -> int:
    return int(torch.Size(shape).numel())


def _key(dataset: ImageDataset, drop_unreadable: bool) -> str:
    return dataset.content_key(f" {dataset.image_size} {drop_unreadable}")


def _full(folder: Path, detail: str) -> str:
    return (
        f"The disk of cache='{folder}' is full ({detail}): choose a `cache` with more room, or a smaller `image_size`."
    )
