"""Adapts data sets of users and libraries to `SampleDataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from diet_lightning.data.dataset import ArrayDataset, SampleDataset
from diet_lightning.data.metadata import digests_of, fingerprint_parts_of, labels_of, names_of, to_label
from diet_lightning.errors import DataError, DIETError
from diet_lightning.transforms.convert import to_tensor

INPUT_KEYS = ("image", "img", "input", "pixel_values")
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

    Raises:
        DataError: If it has no length.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
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
        try:
            sample = self.dataset[index]
            if isinstance(sample, Mapping):
                sample = _pair_of_mapping(sample)
            elif not isinstance(sample, tuple | list):
                sample = (sample, None)
            label = sample[1] if len(sample) > 1 else None
            return to_tensor(sample[0]), to_label(label)
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
        return MapDataset(Subset(self.dataset, indices))

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

    def loaded(self, in_memory: bool) -> SampleDataset:
        """As arrays, unless the second tensor holds something other than labels."""
        labels, tensors = self.labels, self.dataset.tensors
        return self if labels is None and len(tensors) > 1 else ArrayDataset(tensors[0], labels, self)


def _pair_of_mapping(sample: Mapping[str, Any]) -> tuple[Any, Any]:
    for key in INPUT_KEYS:
        if key in sample:
            return sample[key], next((sample[name] for name in LABEL_KEYS if name in sample), None)
    raise KeyError(f"none of the keys {list(INPUT_KEYS)} is among {sorted(sample)}")
