"""Adapts data sets of users and libraries to `SampleDataset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset
from tqdm import tqdm

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.array_format import extremes_of, format_for
from diet_lightning.data.columns import INPUT_KEYS, LABEL_KEYS
from diet_lightning.data.dataset import Extremes, SampleDataset
from diet_lightning.data.metadata import digests_of, fingerprint_parts_of, labels_of, names_of, to_label
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.survey import evenly_spaced
from diet_lightning.errors import DataError, DIETError
from diet_lightning.transforms.convert import PixelFormat, to_tensor
from diet_lightning.transforms.geometry import Geometry
from diet_lightning.transforms.ragged import RaggedImages

EXTREMES_SAMPLES = 2**16  # samples whose values are looked at


def adapt(dataset: Any) -> SampleDataset:
    """Any map-style data set as a `SampleDataset`.

    Args:
        dataset: A data set with ``__len__`` and ``__getitem__``; samples as `IndexedDataset` takes them.

    Returns:
        The adapted data set; a `SampleDataset` unchanged.

    Raises:
        DataError: If the data set has no length.
    """
    if isinstance(dataset, SampleDataset):
        return dataset
    return TensorMapDataset(dataset) if isinstance(dataset, TensorDataset) else MapDataset(dataset)


class MapDataset(SampleDataset):
    """A map-style data set of a user or a library, whose samples are read one by one.

    Args:
        dataset: The data set.
        columns: Keys of the input and of the label in samples that are mappings; None for the usual ones.
        labels: Labels that replace those of the samples, int64, shape ``(N,)``; None keeps them.
        pixels: How PIL images become tensors.
        make: How arrays and tensors become stored samples; None leaves them unchanged.

    Raises:
        DataError: If it has no length.
    """

    def __init__(
        self,
        dataset: Any,
        columns: tuple[str | None, str | None] = (None, None),
        labels: Tensor | None = None,
        pixels: PixelFormat | None = None,
        make: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.dataset = dataset
        self.columns, self._labels = columns, labels
        self.pixels, self.make = pixels or PixelFormat(), make
        self._length = self._measure()

    def _measure(self) -> int:
        try:
            return len(self.dataset)
        except TypeError as error:
            raise DataError(
                f"Data set {self.kind} has no length: DIET gives every sample a class of its own, so it needs a map-style "
                "data set with `__len__` and `__getitem__`."
            ) from error

    def __len__(self) -> int:
        """N, at the time when the data set was adapted."""
        return self._length

    @property
    def kind(self) -> str:
        """Name of the data set's own class."""
        return type(self.dataset).__name__

    def pair(self, index: int) -> tuple[Any, Any]:
        """Input and label of one sample, as the data set gives them: an input, a pair ``(input, label, ...)`` or a mapping.

        Raises:
            DataError: If the sample cannot be read.
        """
        return self._read(index, lambda value: value)

    def read(self, index: int) -> tuple[Tensor, int]:
        """One sample, as a tensor and an integer."""
        tensor, label = self._read(index, self._stored)
        if self._labels is not None:
            return tensor, int(self._labels[index])
        try:
            return tensor, to_label(label)
        except ValueError as error:
            raise DataError(f"The label of sample {index} of {self.kind} cannot be read: {error}.") from error

    def _stored(self, value: Any) -> Tensor:
        if isinstance(value, Image.Image) or self.make is None:
            return to_tensor(value, self.pixels)
        return self.make(to_tensor(value))

    def _values(self, value: Any) -> Tensor:
        return self.pixels.to_values(value) if isinstance(value, Image.Image) else to_tensor(value)

    def _read(self, index: int, convert: Callable[[Any], Any]) -> tuple[Any, Any]:
        try:
            sample = self.dataset[index]
            if isinstance(sample, Mapping):
                sample = _pair_of_mapping(sample, *self.columns)
            elif not isinstance(sample, tuple | list):
                sample = (sample, None)
            return convert(sample[0]), sample[1] if len(sample) > 1 else None
        except DIETError:
            raise
        except Exception as error:  # any exception may come from a foreign data set
            raise DataError(f"Sample {index} of {self.kind} cannot be read: {error}") from error

    def read_batch(
        self, indices: Sequence[int], geometry: Geometry | None = None
    ) -> tuple[Tensor | RaggedImages, Tensor]:
        """Several samples.

        Raises:
            DataError: Also if the length has changed.
        """
        if (length := self._measure()) != self._length:
            raise DataError(
                f"The length of data set {self.kind} changed from {self._length} to {length}: every sample keeps one row "
                "of the head, so the data must not change during a run."
            )
        return super().read_batch(indices)

    def subset(self, indices: Sequence[int]) -> SampleDataset:
        """The samples at `indices`, in that order."""
        labels = None if self._labels is None else self._labels[torch.as_tensor(indices, dtype=torch.int64)]
        return MapDataset(Subset(self.dataset, indices), self.columns, labels, self.pixels, self.make)

    def with_columns(self, image: str, label: str | None) -> MapDataset:
        """The same samples with the keys of their input and label."""
        return type(self)(self.dataset, (image, label), self._labels, self.pixels, self.make)

    def with_labels(self, labels: Tensor) -> MapDataset:
        """The same samples with other labels, int64, shape ``(N,)``."""
        return type(self)(self.dataset, self.columns, labels, self.pixels, self.make)

    def extremes(self) -> Extremes | None:
        """As for `SampleDataset`; reads up to 65,536 evenly spaced images if the first has more than 8 bits."""
        first, _ = self._read(0, self._values)
        integers = not first.is_floating_point()
        if first.dtype == torch.uint8 or first.ndim != 3 - (integers and first.ndim == 2):
            return None
        indices = evenly_spaced(len(self), EXTREMES_SAMPLES)
        bar = tqdm(indices, "looking for the range of values", leave=False, delay=2)
        found = [extremes_of(self._read(index, self._values)[0][None]) for index in bar]
        return min(low for low, _ in found), max(high for _, high in found), integers

    def formatted(self, read: ReadConfig) -> tuple[SampleDataset, list[str]]:
        """As for `SampleDataset`; the first sample decides on the channels of all."""
        pixels = PixelFormat(read.color, read.background, read.pixel_range)
        value, _ = self.pair(0)
        if isinstance(value, Image.Image):
            return MapDataset(self.dataset, self.columns, self._labels, pixels), []
        first = to_tensor(value)
        make, notes = format_for(first.shape, first.dtype, read)
        return MapDataset(self.dataset, self.columns, self._labels, pixels, make), notes

    @property
    def labels(self) -> Tensor | None:
        """All labels, if the data set keeps them in one place."""
        return labels_of(self.dataset) if self._labels is None else self._labels

    @property
    def names(self) -> list[str] | None:
        """A name for each sample, if the data set keeps them."""
        return names_of(self.dataset)

    @property
    def nbytes(self) -> None:
        """Not known."""
        return None

    def fingerprint_parts(self) -> list[bytes] | None:
        """What the data set's own ``fingerprint_parts()`` returns, or 16 samples with the digests of all if it has these."""
        own, digests = fingerprint_parts_of(self.dataset), self.sample_digests()
        return own if own is not None or digests is None else [*self.probed_parts(), digests.tobytes()]

    def _sample_digests(self) -> NDArray[np.uint8] | None:
        return digests_of(self.dataset, range(len(self)))


class TensorMapDataset(MapDataset):
    """A `TensorDataset` of inputs and, if there are several tensors, labels."""

    def formatted(self, read: ReadConfig) -> tuple[SampleDataset, list[str]]:
        """As arrays, unless the second tensor holds something other than labels."""
        labels, tensors = self.labels, self.dataset.tensors
        if labels is None and len(tensors) > 1:
            return super().formatted(read)
        return ArrayDataset(tensors[0], labels, self).formatted(read)


def _pair_of_mapping(sample: Mapping[str, Any], image: str | None, label: str | None) -> tuple[Any, Any]:
    key = next((name for name in INPUT_KEYS if name in sample), None) if image is None else image
    if key is None:
        raise KeyError(
            f"none of the keys {list(INPUT_KEYS)} is among {sorted(sample)}: set `read.image_column` to the key of the input"
        )
    label = next((name for name in LABEL_KEYS if name in sample), None) if label is None else label
    for name in (key, label):
        if name is not None and name not in sample:
            raise KeyError(f"{name!r} is not among the keys {sorted(sample)}")
    return sample[key], None if label is None else sample[label]
