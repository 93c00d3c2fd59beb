"""Images from files and foreign data sets: decoded, converted to RGB, resized, and kept in memory if they fit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from diet_lightning.data.dataset import ArrayDataset, SampleDataset
from diet_lightning.data.metadata import fingerprint_parts_of, labels_of, names_of, relative_name, to_label
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.transforms.convert import to_rgb, to_square, to_tensor

if TYPE_CHECKING:
    from diet_lightning.data.cache import CachedSplit, ImageCache

AHEAD = 512  # images that threads decode ahead
LONG = 2000  # number of images from which on a bar is shown


class ImageFiles(Dataset[tuple[Image.Image, int]]):
    """Image files with a label each.

    Args:
        paths: The files, in the order of their indices.
        labels: One label per file, -1 for files without one.
        root: Folder to which the paths in the fingerprint are relative, so that a moved folder keeps its fingerprint.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], root: Path) -> None:
        self.paths = list(paths)
        self.labels = list(labels)
        self.root = root

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The decoded file and its label."""
        with Image.open(self.paths[index]) as image:
            return to_rgb(image), self.labels[index]

    @property
    def names(self) -> list[str]:
        """Relative path of every file."""
        return [relative_name(path, self.root) for path in self.paths]

    def fingerprint_parts(self) -> list[bytes]:
        """Relative path and size of every file."""
        named = zip(self.names, self.paths, strict=True)
        return [f"{name} {path.stat().st_size}".encode() for name, path in named]


class ImageDataset(SampleDataset):
    """RGB images of one size from a data set of images of any size and mode, decoded as they are read.

    Args:
        items: A map-style data set of ``(PIL image, array or tensor, label)``, such as torchvision's.
        image_size: Shorter side and central crop, in pixels; None keeps the images, which must then have one size.
        keep: Indices of `items` to keep, in order; None for all.
        pixels_in_memory: Whether `items` keeps the pixels of all images in memory.
    """

    def __init__(
        self,
        items: Any,
        image_size: int | None = None,
        keep: Sequence[int] | None = None,
        pixels_in_memory: bool = False,
    ) -> None:
        self.items = items
        self.image_size = image_size
        self.pixels_in_memory = pixels_in_memory
        self.keep: Sequence[int] = range(len(items)) if keep is None else keep
        self._size: tuple[int, ...] | None = None  # of the first image, found on first use

    def __len__(self) -> int:
        """Number of images kept."""
        return len(self.keep)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image as uint8 ``(3, H, W)``, and its label.

        Raises:
            DataError: If it cannot be read, or differs in size from image 0 where `image_size` is None.
        """
        image, label = self.read(index)
        if self._size is None:
            self._size = tuple((image if index == 0 else self.read(0)[0]).shape)
        self.check_size(index, image, self._size)
        return image, label

    def check_size(self, index: int, image: Tensor, size: tuple[int, ...]) -> None:
        """Compares an image's shape with image 0's.

        Raises:
            DataError: If they differ.
        """
        if tuple(image.shape) != size:
            raise DataError(
                f"Image {index}{self.name_of(index)} has shape {tuple(image.shape)}, but image 0 has {size}: set "
                "`image_size` to bring all images to one size."
            )

    def describe(self, index: int, error: DataError) -> str:
        """One line on an image that cannot be read."""
        return f"{index}{self.name_of(index)}: {error.__cause__ or error}"

    def read(self, index: int) -> tuple[Tensor, int]:
        """The image, of whatever size, and its label.

        Raises:
            DataError: If it cannot be read.
            ConfigurationError: If its label is not a class.
        """
        try:
            image, label = self.items[self.keep[index]][:2]
            tensor = to_tensor(image)
        except Exception as error:  # decoders raise exceptions of any type, even SyntaxError
            raise DataError(
                f"Image {index}{self.name_of(index)} cannot be read: {error}; replace the file, or set "
                "`drop_unreadable` to true to leave such files out before the run."
            ) from error
        try:
            number = to_label(label)
        except ValueError as error:  # of another type than an unreadable image, which may be left out
            raise ConfigurationError(
                f"The label of image {index}{self.name_of(index)} is not a class: {error}; correct the label."
            ) from error
        if self.image_size is not None:
            tensor = to_square(tensor, self.image_size)
        return tensor, number

    def name_of(self, index: int) -> str:
        """`` (path)`` for files, else an empty string."""
        return ""

    def fingerprint_parts(self) -> list[bytes] | None:
        """Bytes that identify the images without decoding them; None if only their pixels do."""
        every = fingerprint_parts_of(self.items)
        return None if every is None else [str(self.image_size).encode(), *(every[n] for n in self.keep)]

    @property
    def names(self) -> list[str] | None:
        """A name for each image, if `items` keeps them."""
        names = names_of(self.items)
        return None if names is None else [names[n] for n in self.keep]

    @property
    def labels(self) -> Tensor | None:
        """All labels, shape ``(N,)``, if `items` lists them."""
        labels = labels_of(self.items)
        return None if labels is None else labels[torch.as_tensor(list(self.keep))]

    def subset(self, indices: Sequence[int]) -> ImageDataset:
        """The images at `indices`, in that order."""
        return type(self)(self.items, self.image_size, [self.keep[n] for n in indices], self.pixels_in_memory)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded images; decodes the first."""
        return len(self) * self[0][0].nbytes

    def needs_workers(self, memory: float) -> bool:
        """Decoding does."""
        return True

    def loaded(self, in_memory: bool) -> SampleDataset:
        """If `in_memory`, the images decoded into one uint8 tensor, with a progress bar; else this data set."""
        if not in_memory:
            return self
        first, _ = self[0]
        inputs = torch.empty(len(self), *first.shape, dtype=first.dtype)
        labels = torch.empty(len(self), dtype=torch.int64)
        for index, (image, label) in enumerate(map_threaded(self.__getitem__, len(self), "decoding images")):
            inputs[index], labels[index] = image, label
        return ArrayDataset(inputs, labels, self).loaded(in_memory)

    def cached(self, cache: ImageCache, split: str, drop_unreadable: bool) -> CachedSplit:
        """The decoded images in a cache."""
        return cache.open(self, split, drop_unreadable)

    def without_unreadable(self) -> tuple[ImageDataset, list[str]]:
        """Decodes every image once and leaves out those that fail.

        Returns:
            The data set of the readable images, and one line for each that was left out.
        """
        keep, dropped = [], []
        for index, error in enumerate(map_threaded(self._error_of, len(self), "checking images")):
            if error is None:
                keep.append(index)
            else:
                dropped.append(error)
        return self.subset(keep), dropped

    def _error_of(self, index: int) -> str | None:
        try:
            self.read(index)
        except DataError as error:
            return self.describe(index, error)
        return None


class ImageFileDataset(ImageDataset):
    """`ImageDataset` of files: messages name the file, and a changed file is noticed."""

    items: ImageFiles

    def name_of(self, index: int) -> str:
        """`` (path)``."""
        return f" ({self.items.paths[self.keep[index]]})"

    def change_times(self) -> list[int]:
        """When each file was last changed, in nanoseconds."""
        return [self.items.paths[n].stat().st_mtime_ns for n in self.keep]


def map_threaded(function: Callable[[int], Any], count: int, description: str, first: int = 0) -> Iterator[Any]:
    """Results of a function of first … count-1, computed by threads (PIL releases the lock while it decodes), with a bar.

    Args:
        function: Takes an index.
        count: Index after the last.
        description: Text of the bar.
        first: First index.

    Yields:
        The results in order; some hundred are computed ahead.
    """
    bar = tqdm(total=count, initial=first, desc=description, leave=False, disable=count - first < LONG)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(first, count, AHEAD):
            for result in pool.map(function, range(start, min(start + AHEAD, count))):
                yield result
                bar.update()


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts ``img2`` before ``img10``, the same on every file system."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.lower())
        for part in re.split(r"(\d+)", path.as_posix())
        if part
    ] + [(2, 0, path.as_posix())]


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, in natural order; hidden files and folders are ignored, links followed."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = Path(parent)
        # a link to one of these would list every image again
        above = {each.resolve() for each in (here, *here.parents)}
        folders[:] = [name for name in folders if name[0] != "." and (here / name).resolve() not in above]
        found += [here / name for name in files if name[0] != "."]
    return sorted((path for path in found if path.suffix.lower() in IMG_EXTENSIONS and path.is_file()), key=natural_key)
