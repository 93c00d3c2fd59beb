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

from diet_lightning.data.array_format import extremes_of, format_for
from diet_lightning.data.dataset import ArrayDataset, Extremes, SampleDataset
from diet_lightning.data.metadata import digests_of, fingerprint_parts_of, labels_of, names_of, to_label
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.survey import evenly_spaced
from diet_lightning.errors import DataError, DIETError
from diet_lightning.transforms.convert import PixelFormat, to_tensor

INPUT_KEYS = ("image", "img", "input", "pixel_values")
EXTREMES_SAMPLES = 2**16  # samples whose values are looked at
LABEL_KEYS = ("label", "labels", "target", "fine_label")


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
        pixels: How PIL images become tensors.
        make: How arrays and tensors become stored samples; None leaves them unchanged.

    Raises:
        DataError: If it has no length.
    """

    def __init__(
        self, dataset: Any, pixels: PixelFormat | None = None, make: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.dataset = dataset
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

    def read(self, index: int) -> tuple[Tensor, int]:
        """One sample: an input, a pair ``(input, label, ...)`` or a mapping, made a tensor and an integer."""
        return self._read(index, self._stored)

    def _stored(self, value: Any) -> Tensor:
        if isinstance(value, Image.Image) or self.make is None:
            return to_tensor(value, self.pixels)
        return self.make(to_tensor(value))

    def _values(self, value: Any) -> Tensor:
        return self.pixels.to_values(value) if isinstance(value, Image.Image) else to_tensor(value)

    def _read(self, index: int, convert: Callable[[Any], Any]) -> tuple[Any, int]:
        try:
            sample = self.dataset[index]
            if isinstance(sample, Mapping):
                sample = _pair_of_mapping(sample)
            elif not isinstance(sample, tuple | list):
                sample = (sample, None)
            label = sample[1] if len(sample) > 1 else None
            return convert(sample[0]), to_label(label)
        except DIETError:
            raise
        except Exception as error:  # any exception may come from a foreign data set
            raise DataError(f"Sample {index} of {self.kind} cannot be read: {error}") from error

    def read_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
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
        return MapDataset(Subset(self.dataset, indices), self.pixels, self.make)

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
        value, _ = self._read(0, lambda value: value)
        if isinstance(value, Image.Image):
            return MapDataset(self.dataset, pixels), []
        first = to_tensor(value)
        make, notes = format_for(first.shape, first.dtype, read)
        return MapDataset(self.dataset, pixels, make), notes

    @property
    def labels(self) -> Tensor | None:
        """All labels, if the data set keeps them in one place."""
        return labels_of(self.dataset)

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


def _pair_of_mapping(sample: Mapping[str, Any]) -> tuple[Any, Any]:
    for key in INPUT_KEYS:
        if key in sample:
            return sample[key], next((sample[name] for name in LABEL_KEYS if name in sample), None)
    raise KeyError(f"none of the keys {list(INPUT_KEYS)} is among {sorted(sample)}")
