"""IndexedDataset: attaches its index n to each sample (DIET, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from diet_lightning.data.adapters import adapt
from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import DataError
from diet_lightning.transforms.geometry import Geometry
from diet_lightning.utilities.text import first_few

SHOWN = 8  # indices named in the message


class StepIndices(list[int]):
    """The indices of one training step of a rank.

    Args:
        indices: The indices.
        position: (seed, epoch, step), which determines the augmentation.
    """

    def __init__(self, indices: Sequence[int], position: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        """The state that a loader process gets."""
        return type(self), (list(self), self.position)


class IndexedDataset(Dataset[DatumBatch]):
    """A map-style data set that returns the index of each sample with it.

    The index is the position in *this* data set: wrap last, after `Subset` or `ConcatDataset`, and it is exactly
    0 … N-1. Samples may be an input, a pair ``(input, label, ...)`` or a mapping with the keys of a Hugging Face set;
    inputs may be tensors, arrays or PIL images.

    Args:
        dataset: A data set with ``__len__`` and ``__getitem__``. It may offer ``names``, a name for each sample as a list of
            strings or a method that gives it, which `EmbeddingWriter` writes beside the embeddings; and a method
            ``fingerprint_parts()``, which returns a list of bytes that identify all samples. Without it, 16 samples of a
            custom data set are compared when a run resumes.
        measured: Name of the split if it is measured and not trained on: then its inputs must be finite, which `FiniteGuard`
            checks for others.
        geometry: What becomes of each image where the data set `has_sizes`; None keeps them as they are stored.

    Raises:
        DataError: If the data set has no length or is empty.
    """

    def __init__(self, dataset: Any, measured: str | None = None, geometry: Geometry | None = None) -> None:
        self.dataset = adapt(dataset)
        self.measured = measured
        self.geometry = geometry
        if len(self.dataset) == 0:
            raise DataError(f"Expected data set {self.dataset.kind} to hold samples, but it is empty.")

    def __len__(self) -> int:
        """N, at the time when the data set was wrapped."""
        return len(self.dataset)

    def __getitem__(self, index: int | StepIndices) -> DatumBatch:
        """One sample, with a scalar index and label; or the batch of a step."""
        if isinstance(index, StepIndices):
            return self.__getitems__(index)
        batch = self.__getitems__([index])
        return DatumBatch(*(field[0] for field in batch))

    def __getitems__(self, indices: Sequence[int]) -> DatumBatch:
        """A whole batch, read at once where the data set is in memory.

        Args:
            indices: Positions, shape ``(B,)``; `StepIndices` for random crops.

        Raises:
            DataError: For an index outside 0 … N-1, a changed length, or a sample that cannot be read or stacked; in a measured
                split also for inputs that are not finite.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if len(outside := rows[(rows < 0) | (rows >= len(self))]):
            raise DataError(f"Expected an index in 0 … {len(self) - 1}, but got {int(outside[0])}.")
        geometry = self.geometry
        if isinstance(indices, StepIndices) and geometry is not None:
            geometry = geometry.at(indices.position, len(indices))
        inputs, labels = self.dataset.read_batch(indices, geometry)
        if self.measured is not None and isinstance(inputs, Tensor) and inputs.is_floating_point():
            finite = torch.isfinite(inputs.reshape(len(rows), -1)).all(dim=1)
            if not bool(finite.all()):
                self._stop(rows[~finite].tolist())
        return DatumBatch(inputs, rows, labels)  # type: ignore[arg-type]  # RaggedImages, before they have one size

    def _stop(self, indices: Sequence[int]) -> None:
        names = self.dataset.names
        shown = first_few([str(n) if names is None else f"{n} ({names[n]})" for n in indices], limit=SHOWN)
        raise DataError(
            f"{len(indices)} input(s) of the {self.measured} split hold NaN or infinite values, index "
            f"{shown}: correct or remove them."
        )
