"""ArrayDataset: samples in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.array_format import format_for
from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.fingerprint import row_digests
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.errors import DataError
from diet_lightning.transforms.geometry import Geometry
from diet_lightning.transforms.ragged import RaggedImages

CHUNK = 1024  # samples whose values are looked at together


class ArrayDataset(SampleDataset):
    """Samples held in memory, served one at a time or by whole batches.

    Args:
        inputs: Shape ``(N, ...)``; images are uint8 ``(N, C, H, W)``, or `RaggedImages` if they have several sizes.
        labels: Shape ``(N,)``, int64, or None without labels.
        origin: The data set that the samples were decoded from; it has their names and identifies them.
    """

    def __init__(
        self, inputs: Tensor | RaggedImages, labels: Tensor | None = None, origin: SampleDataset | None = None
    ) -> None:
        if labels is None:
            labels = torch.full((len(inputs),), NO_LABEL)
        if len(labels) != len(inputs):
            raise DataError(f"Expected one label per sample, but got {len(labels)} labels for {len(inputs)} samples.")
        self.inputs: Any = inputs  # a Tensor or RaggedImages
        self._labels = labels.to(torch.int64)
        self.origin = origin

    def __len__(self) -> int:
        """N."""
        return len(self.inputs)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        """The sample at an index, or the batch at several."""
        return self.inputs[index], self.labels[index]

    def read(self, index: int) -> tuple[Tensor, int]:
        """One sample."""
        return self.inputs[index], int(self.labels[index])

    @property
    def has_sizes(self) -> bool:  # type: ignore[override]
        """Whether the inputs are images of several sizes."""
        return isinstance(self.inputs, RaggedImages)

    def read_batch(
        self, indices: Sequence[int], geometry: Geometry | None = None
    ) -> tuple[Tensor | RaggedImages, Tensor]:
        """Several samples, read at once."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if isinstance(self.inputs, RaggedImages) and geometry is not None:
            return geometry.stacked(self.inputs[n] for n in rows.tolist()), self.labels[rows]
        return self.inputs[rows], self.labels[rows]

    def subset(self, indices: Sequence[int]) -> ArrayDataset:
        """A copy of the samples at `indices`, in that order."""
        return ArrayDataset(*self.read_batch(indices), None if self.origin is None else self.origin.subset(indices))

    @property
    def labels(self) -> Tensor:
        """All labels, -1 for samples without one."""
        return self._labels

    @property
    def names(self) -> list[str] | None:
        """Names of the files or samples that these were decoded from."""
        return None if self.origin is None else self.origin.names

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs."""
        return int(self.inputs.nbytes)

    @property
    def array_dtype(self) -> torch.dtype:
        """As for `SampleDataset`."""
        dtype: torch.dtype = self.inputs.dtype
        return dtype

    def wide_parts(self) -> Iterator[tuple[int, Tensor]]:
        """As for `SampleDataset`; of all images."""
        is_image = self.inputs.ndim == 4 or (self.inputs.ndim == 3 and not self.inputs.is_floating_point())
        if not isinstance(self.inputs, RaggedImages) and self.inputs.dtype != torch.uint8 and is_image:
            for start in range(0, len(self), CHUNK):
                yield start, self.inputs[start : start + CHUNK]

    def formatted(self, read: ReadConfig) -> tuple[ArrayDataset, list[str]]:
        """As for `SampleDataset`; the samples are converted once."""
        make, notes = format_for(self.inputs.shape[1:], self.inputs.dtype, read)
        return ArrayDataset(make(self.inputs), self.labels, self.origin), notes

    @property
    def arrays(self) -> ArrayDataset:
        """Itself."""
        return self

    def loaded(self, in_memory: bool) -> ArrayDataset:
        """The same samples, without an origin that holds all pixels in memory a second time."""
        return ArrayDataset(self.inputs, self.labels, self.kept_origin())

    def kept_origin(self) -> SampleDataset | None:
        """The origin, unless it keeps all pixels in memory a second time."""
        return None if self.origin is None or self.origin.pixels_in_memory else self.origin

    def fingerprint_parts(self) -> list[bytes] | None:
        """Shape, dtype and digests of the inputs, in order."""
        digests, form = self.sample_digests(), f"{tuple(self.inputs.shape)} {self.inputs.dtype}"
        return None if digests is None else [form.encode(), digests.tobytes()]

    def _sample_digests(self) -> NDArray[np.uint8] | None:
        return row_digests(self.inputs) if self.origin is None else self.origin.sample_digests()

    def fingerprint(self) -> str:
        """As for `SampleDataset`; of decoded images that of their files."""
        return super().fingerprint() if self.origin is None else self.origin.fingerprint()

    def content_key(self, options: str = "") -> str:
        """As for `SampleDataset`; of decoded images that of their files."""
        return super().content_key(options) if self.origin is None else self.origin.content_key(options)
