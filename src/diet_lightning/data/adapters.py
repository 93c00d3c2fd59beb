"""Adapts data sets of users and libraries to `SampleDataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from diet_lightning.data.columns import INPUT_KEYS, LABEL_KEYS
from diet_lightning.data.dataset import ArrayDataset, SampleDataset
from diet_lightning.data.metadata import fingerprint_parts_of, labels_of, names_of, to_label
from diet_lightning.errors import DataError, DIETError
from diet_lightning.transforms.convert import to_tensor


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

    Raises:
        DataError: If it has no length.
    """

    def __init__(
        self, dataset: Any, columns: tuple[str | None, str | None] = (None, None), labels: Tensor | None = None
    ) -> None:
        self.dataset = dataset
        self.columns = columns
        self._labels = labels
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
        try:
            sample = self.dataset[index]
            if isinstance(sample, Mapping):
                return _pair_of_mapping(sample, *self.columns)
            if not isinstance(sample, tuple | list):
                return sample, None
            return sample[0], sample[1] if len(sample) > 1 else None
        except DIETError:
            raise
        except Exception as error:  # any exception may come from a foreign data set
            raise self._unreadable(index, error) from error

    def _unreadable(self, index: int, error: Exception) -> DataError:
        return DataError(f"Sample {index} of {self.kind} cannot be read: {error}")

    def read(self, index: int) -> tuple[Tensor, int]:
        """One sample, as a tensor and an integer."""
        value, label = self.pair(index)
        try:
            tensor = to_tensor(value)
        except Exception as error:  # an array may have a dtype that torch lacks
            raise self._unreadable(index, error) from error
        if self._labels is not None:
            return tensor, int(self._labels[index])
        try:
            return tensor, to_label(label)
        except ValueError as error:
            raise DataError(f"The label of sample {index} of {self.kind} cannot be read: {error}.") from error

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
        labels = None if self._labels is None else self._labels[torch.as_tensor(indices, dtype=torch.int64)]
        return MapDataset(Subset(self.dataset, indices), self.columns, labels)

    def with_columns(self, image: str, label: str | None) -> MapDataset:
        """The same samples with the keys of their input and label."""
        return type(self)(self.dataset, (image, label), self._labels)

    def with_labels(self, labels: Tensor) -> MapDataset:
        """The same samples with other labels, int64, shape ``(N,)``."""
        return type(self)(self.dataset, self.columns, labels)

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
        """What the data set's own ``fingerprint_parts()`` returns, if it has such a method."""
        return fingerprint_parts_of(self.dataset)


class TensorMapDataset(MapDataset):
    """A `TensorDataset` of inputs and, if there are several tensors, labels."""

    def loaded(self, in_memory: bool) -> SampleDataset:
        """As arrays, unless the second tensor holds something other than labels."""
        labels, tensors = self.labels, self.dataset.tensors
        return self if labels is None and len(tensors) > 1 else ArrayDataset(tensors[0], labels, self)


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
