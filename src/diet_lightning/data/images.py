"""Images from files and foreign data sets: decoded, resized, and kept in memory if they fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.decoding import Header, read_header, read_values
from diet_lightning.data.metadata import digests_of, labels_of, names_of, to_label
from diet_lightning.data.read_config import READ, ReadConfig
from diet_lightning.data.survey import evenly_spaced, image_notes
from diet_lightning.data.value_survey import RangeCheck
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.transforms.convert import PixelFormat
from diet_lightning.transforms.geometry import Geometry, Whole
from diet_lightning.transforms.ragged import RaggedImages, join_images
from diet_lightning.utilities.threads import map_threaded

if TYPE_CHECKING:
    from diet_lightning.data.cache import CachedSplit, ImageCache

RANGE_IMAGES = 64  # evenly spaced images whose values decide how all of more than 8 bits are scaled


class ImageDataset(SampleDataset):
    """Images of any size and mode from a data set, decoded as they are read.

    Args:
        items: A map-style data set of ``(path, open file, PIL image, array or tensor, label)``, such as torchvision's.
        image_size: Side of the network's input in pixels: larger images are reduced, see `Whole`. None keeps the images,
            which must then have one size.
        read: How images become tensors.
        keep: Indices of `items` to keep, in order; None for all.
        pixels_in_memory: Whether `items` keeps the pixels of all images in memory.
    """

    num_headers = RANGE_IMAGES  # images that are looked at first; few, since foreign data sets decode them

    def __init__(
        self,
        items: Any,
        image_size: int | None = None,
        read: ReadConfig = READ,
        keep: Sequence[int] | None = None,
        pixels_in_memory: bool = False,
    ) -> None:
        self.items = items
        self.image_size = image_size
        self.read_config = read
        self.pixels = PixelFormat(read.color, read.background, read.pixel_range)
        self.pixels_in_memory = pixels_in_memory
        self.keep: Sequence[int] = range(len(items)) if keep is None else keep
        self.whole = None if image_size is None else Whole((image_size, image_size))
        self._check_range = RangeCheck()

    def __len__(self) -> int:
        """Number of images kept."""
        return len(self.keep)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image as uint8 ``(C, H, W)``, and its label.

        Raises:
            DataError: If it cannot be read, or differs from image 0 in channels or, where `image_size` is None, in size.
        """
        image, label = self.read(index)
        self.check_size(index, image, self._first_shape)
        return image, label

    @cached_property
    def _first_shape(self) -> tuple[int, ...]:
        return tuple(self.read(0)[0].shape)

    def check_size(self, index: int, image: Tensor, size: tuple[int, ...]) -> None:
        """Compares an image's shape with image 0's.

        Raises:
            DataError: If their channels differ, or their sizes where `image_size` is None.
        """
        if len(image) != size[0] or (self.image_size is None and tuple(image.shape) != size):
            cure = "`image_size` to bring all images to one size"
            if len(image) != size[0]:
                cure = "`read.color` to rgb or gray to give all images the same channels"
            raise DataError(
                f"Image {index}{self.name_of(index)} has shape {tuple(image.shape)}, but image 0 has {size}: set {cure}."
            )

    def describe(self, index: int, error: DataError) -> str:
        """One line on an image that cannot be read."""
        return f"{index}{self.name_of(index)}: {error.__cause__ or error}"

    def read_batch(
        self, indices: Sequence[int], geometry: Geometry | None = None
    ) -> tuple[Tensor | RaggedImages, Tensor]:
        """As for `SampleDataset`."""
        if not self.has_sizes:
            return super().read_batch(indices)
        read = [self.read(index, geometry, n) for n, index in enumerate(indices)]
        images, labels = map(list, zip(*read, strict=True))
        for index, image in zip(indices, images, strict=True):
            self.check_size(index, image, self._first_shape)
        return join_images(images), torch.tensor(labels)

    @property
    def has_sizes(self) -> bool:  # type: ignore[override]
        """Whether `image_size` is given."""
        return self.image_size is not None

    def read(self, index: int, geometry: Geometry | None = None, n: int = 0) -> tuple[Tensor, int]:
        """The image, of whatever size, and its label.

        Args:
            index: Position, 0 to N-1.
            geometry: What becomes of the image; None reduces it as it is stored.
            n: Place of the image in the batch.

        Raises:
            DataError: If it cannot be read.
            ConfigurationError: If its label is not a class.
        """
        geometry = geometry or self.whole
        sizes: list[tuple[int, int]] = []

        def reduction(size: tuple[int, int]) -> float:
            sizes.append(size)
            return 1.0 if geometry is None else geometry.reduction(n, size)

        try:
            image, label = self.items[self.keep[index]][:2]
            values = read_values(image, self.pixels, self.read_config.pages, reduction)
            self._check_range(values, self.pixels.value_range)
            tensor = self.pixels.to_stored(values)
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
        if geometry is not None:
            tensor = geometry.apply(n, tensor, sizes[0] if sizes else tensor.shape[1:])
        return tensor, number

    def name_of(self, index: int) -> str:
        """`` (path)`` for files, else an empty string."""
        return ""

    def fingerprint_parts(self) -> list[bytes] | None:
        """What identifies the images without decoding them; None if only their pixels do."""
        digests, form = self.sample_digests(), f"{self.image_size} {self.pixels} {self.read_config.pages}"
        return None if digests is None else [form.encode(), digests.tobytes()]

    def _sample_digests(self) -> NDArray[np.uint8] | None:
        return digests_of(self.items, self.keep)

    @property
    def names(self) -> list[str] | None:
        """A name for each image, if `items` keeps them."""
        names = names_of(self.items)
        return None if names is None else [names[n] for n in self.keep]

    @property
    def labels(self) -> Tensor | None:
        """All labels, shape ``(N,)``, if `items` lists them."""
        labels = labels_of(self.items)
        if labels is None or self.keep == range(len(labels)):  # not taken one by one
            return labels
        return labels[torch.as_tensor(list(self.keep))]

    def subset(self, indices: Sequence[int]) -> ImageDataset:
        """The images at `indices`, in that order."""
        return self._with([self.keep[n] for n in indices], self.read_config, list(indices))

    def _with(self, keep: Sequence[int], read: ReadConfig, rows: list[int] | slice = slice(None)) -> ImageDataset:
        made = type(self)(self.items, self.image_size, read, keep, self.pixels_in_memory)
        if self._digests is not None:
            made._digests = self._digests[rows]
        return made

    def header(self, index: int) -> Header:
        """What is known of an image before it is decoded.

        Raises:
            DataError: If it cannot be read.
        """
        try:
            return read_header(self.items[self.keep[index]][0])
        except Exception as error:  # as for `read`
            raise DataError(f"Image {index}{self.name_of(index)} cannot be read: {error}.") from error

    def wide_parts(self) -> Iterator[tuple[int, Tensor]]:
        """As for `SampleDataset`; of up to 64 evenly spaced images of more than 8 bits among 1,024."""
        wide = [n for n, header in self.headers.items() if header.wide]
        for index in (wide[n] for n in evenly_spaced(len(wide), RANGE_IMAGES)):
            with suppress(Exception):  # an image that cannot be read is named when it is
                values = read_values(self.items[self.keep[index]][0], self.pixels, self.read_config.pages)
                if bool(values.isfinite().all()):
                    yield index, values[None]

    @cached_property
    def headers(self) -> dict[int, Header]:
        """Index → header of up to `num_headers` evenly spaced images, without those that cannot be read."""
        found: dict[int, Header] = {}
        for index in evenly_spaced(len(self), self.num_headers):
            with suppress(DataError):
                found[index] = self.header(index)
        return found

    @property
    def are_gray(self) -> bool:
        """Whether all images that are looked at are gray."""
        return bool(self.headers) and all(header.is_gray for header in self.headers.values())

    def formatted(self, read: ReadConfig) -> tuple[ImageDataset, list[str]]:
        """As for `SampleDataset`; says what the headers show."""
        made = self._with(self.keep, read)
        made.headers = self.headers
        return made, image_notes(list(self.headers.values()), read)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored images, from the sizes of those that were looked at; decodes the first."""
        return self.estimate_bytes(self[0][0])

    def estimate_bytes(self, sample: Tensor) -> int:
        """Bytes of the stored images, of which `sample` is one."""
        if self.whole is None:
            return len(self) * sample.nbytes
        sizes = [self.whole.stored_size(header.size[::-1]) for header in self.headers.values()]
        return int(len(self) * len(sample) * np.mean([height * width for height, width in sizes]))

    def needs_workers(self, memory: float) -> bool:
        """Decoding does."""
        return True

    def loaded(self, in_memory: bool) -> SampleDataset:
        """If `in_memory`, the images decoded into one uint8 tensor, with a progress bar; else this data set."""
        if not in_memory:
            return self
        images, labels = map(list, zip(*map_threaded(self.__getitem__, len(self), "decoding images"), strict=True))
        return ArrayDataset(join_images(images), torch.tensor(labels), self).loaded(in_memory)

    def cached(self, cache: ImageCache, split: str, drop_unreadable: bool) -> CachedSplit:
        """The decoded images in a cache."""
        return cache.open(self, split, drop_unreadable)

    def without_unreadable(self) -> tuple[ImageDataset, list[str]]:
        """Decodes every image once and leaves out those that fail.

        Returns:
            The data set of the readable images, and one line for each other.

        Raises:
            DataError: If none can be read.
        """
        keep, dropped = [], []
        for index, error in enumerate(map_threaded(self._error_of, len(self), "checking images")):
            if error is None:
                keep.append(index)
            else:
                dropped.append(error)
        if not keep:
            raise DataError(
                f"None of the {len(self)} images of a split can be read, the first is {dropped[0]}; replace or remove the files."
            )
        return self.subset(keep), dropped

    def _error_of(self, index: int) -> str | None:
        try:
            self.read(index)
        except DataError as error:
            return self.describe(index, error)
        return None
