"""Data sets that also return the index n (DIET, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.data.metadata import to_label
from diet_lightning.errors import DataError, DIETError
from diet_lightning.transforms.convert import tensor_bytes, to_tensor

INPUT_KEYS = ("image", "img", "input", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "fine_label")


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples held in memory, served one at a time or by whole batches.

    Args:
        inputs: Shape ``(N, ...)``; images are uint8 ``(N, C, H, W)``.
        labels: Shape ``(N,)``, int64, or None where there are none.
    """

    def __init__(self, inputs: Tensor, labels: Tensor | None = None) -> None:
        if labels is None:
            labels = torch.full((len(inputs),), NO_LABEL)
        if len(labels) != len(inputs):
            raise DataError(f"Expected one label per sample, but got {len(labels)} labels for {len(inputs)} samples.")
        self.inputs = inputs
        self.labels = labels.to(torch.int64)

    def __len__(self) -> int:
        """N."""
        return len(self.inputs)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        """The sample at an index, or the batch at several."""
        return self.inputs[index], self.labels[index]

    def fingerprint_parts(self) -> list[bytes]:
        """Shape and values of the inputs, in order."""
        return [repr(tuple(self.inputs.shape)).encode(), tensor_bytes(self.inputs)]


class IndexedDataset(Dataset[DatumBatch]):
    """Any map-style data set, with the index of each sample beside it.

    The index is the position in *this* data set: wrap last, after `Subset` or `ConcatDataset`, and it is exactly
    0 … N-1. Samples may be an input, a pair ``(input, label, ...)`` or a mapping with the keys of a Hugging Face set;
    inputs may be tensors, arrays or PIL images.

    Args:
        dataset: A data set with ``__len__`` and ``__getitem__``. It may offer ``names``, a name for each sample as a list of
            strings or a method that gives it, which `EmbeddingWriter` writes beside the embeddings.

    Raises:
        DataError: If the data set has no length or is empty.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset: Any = dataset
        self._length = self._measure()
        if self._length == 0:
            raise DataError(f"Expected data set {type(dataset).__name__} to hold samples, but it is empty.")

    def _measure(self) -> int:
        try:
            return len(self.dataset)
        except TypeError as error:
            raise DataError(
                f"Data set {type(self.dataset).__name__} has no length: DIET gives every sample a class of its own, so "
                "it needs a map-style data set with `__len__` and `__getitem__`."
            ) from error

    def __len__(self) -> int:
        """N, as it was when the data set was wrapped."""
        return self._length

    def __getitem__(self, index: int) -> DatumBatch:
        """One sample; index and label are scalars."""
        batch = self.__getitems__([index])
        return DatumBatch(*(field[0] for field in batch))

    def __getitems__(self, indices: Sequence[int]) -> DatumBatch:
        """A whole batch, read at once where the data set is in memory.

        Raises:
            DataError: For an index outside 0 … N-1, a changed length, or a sample that cannot be read or stacked.
        """
        if (length := self._measure()) != self._length:
            raise DataError(
                f"The length of data set {type(self.dataset).__name__} changed from {self._length} to {length}: every "
                "sample keeps one row of the head, so the data must not change during a run."
            )
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if len(outside := rows[(rows < 0) | (rows >= self._length)]):
            raise DataError(f"Expected an index in 0 … {self._length - 1}, but got {int(outside[0])}.")
        if isinstance(self.dataset, ArrayDataset):
            return DatumBatch(self.dataset.inputs[rows], rows, self.dataset.labels[rows])
        samples = [self._read(n) for n in indices]
        for n, (sample, _) in zip(indices, samples, strict=True):
            if sample.shape != samples[0][0].shape:
                raise DataError(
                    f"Sample {n} has shape {tuple(sample.shape)}, but sample {indices[0]} has "
                    f"{tuple(samples[0][0].shape)}: a batch needs one shape; resize in the data set, or set "
                    "`image_size` where a source is used."
                )
        return DatumBatch(
            torch.stack([sample for sample, _ in samples]), rows, torch.tensor([label for _, label in samples])
        )

    def _read(self, index: int) -> tuple[Tensor, int]:
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
        except Exception as error:  # a foreign data set may raise anything
            raise DataError(f"Sample {index} of {type(self.dataset).__name__} cannot be read: {error}") from error


def _pair_of_mapping(sample: Mapping[str, Any]) -> tuple[Any, Any]:
    for key in INPUT_KEYS:
        if key in sample:
            return sample[key], next((sample[name] for name in LABEL_KEYS if name in sample), None)
    raise KeyError(f"none of the keys {list(INPUT_KEYS)} is among {sorted(sample)}")
