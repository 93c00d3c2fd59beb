"""SampleDataset: the interface of all data sets."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from diet_lightning.data.read_config import ReadConfig
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.transforms.convert import tensor_bytes
from diet_lightning.transforms.geometry import Geometry
from diet_lightning.transforms.ragged import RaggedImages

if TYPE_CHECKING:
    from diet_lightning.data.array_dataset import ArrayDataset
    from diet_lightning.data.cache import CachedSplit, ImageCache

PROBES = 16  # samples that identify a data set without a fingerprint of its own


class SampleDataset(Dataset[tuple[Tensor, Any]], ABC):
    """Samples by position, and the properties that are known without reading them.

    Arrays, image files, images of libraries, mapped caches and custom data sets are adapted to this class once, by `adapt`
    or by the source that opens them. Loaders, caches and statistics use no other interface.
    """

    has_sizes = False  # whether samples are images of several sizes, which are brought to one when they are read
    pixels_in_memory = False  # whether all samples are in memory besides the ones that are read
    _digests: NDArray[np.uint8] | None = None  # of the samples, once they are computed

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def read(self, index: int) -> tuple[Tensor, int]:
        """One sample.

        Args:
            index: Position, 0 to N-1.

        Returns:
            The input, and its label, -1 where there is none.

        Raises:
            DataError: If it cannot be read.
        """

    def read_batch(
        self, indices: Sequence[int], geometry: Geometry | None = None
    ) -> tuple[Tensor | RaggedImages, Tensor]:
        """Several samples.

        Args:
            indices: Positions, shape ``(B,)``.
            geometry: What becomes of each image of a data set that `has_sizes`; None keeps them as they are stored.

        Returns:
            The inputs, shape ``(B, ...)``, and the labels, int64, shape ``(B,)``.

        Raises:
            DataError: If one cannot be read, or their shapes differ.
        """
        samples = [self[n] for n in indices]
        for n, (sample, _) in zip(indices, samples, strict=True):
            if sample.shape != samples[0][0].shape:
                raise DataError(
                    f"Sample {n} has shape {tuple(sample.shape)}, but sample {indices[0]} has "
                    f"{tuple(samples[0][0].shape)}: a batch needs one shape; resize in the data set, or set "
                    "`image_size` where a source is used."
                )
        return torch.stack([sample for sample, _ in samples]), torch.tensor([label for _, label in samples])

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> SampleDataset:
        """The samples at `indices`, in that order."""

    @property
    @abstractmethod
    def labels(self) -> Tensor | None:
        """All labels, int64, shape ``(N,)``; None if the data set does not list them."""

    @property
    @abstractmethod
    def names(self) -> list[str] | None:
        """A name for each sample, for files the path; None for samples without names."""

    @property
    @abstractmethod
    def nbytes(self) -> int | None:
        """Bytes of all inputs as tensors; None if this needs reading all samples."""

    @abstractmethod
    def fingerprint_parts(self) -> list[bytes] | None:
        """Bytes that identify the samples and their order; None if only their values do."""

    @property
    def kind(self) -> str:
        """Name of the data set in messages."""
        return type(self).__name__

    @property
    def arrays(self) -> ArrayDataset | None:
        """The data set itself if it consists of tensors in memory or mapped into it, else None."""
        return None

    @property
    def array_dtype(self) -> torch.dtype | None:
        """Dtype of samples that are arrays; None for images that are decoded."""
        return None

    def wide_parts(self) -> Iterator[tuple[int, Tensor]]:
        """Values of images of more than 8 bits: positions of their first, and values, ``(n, ...)``; of many images only some.

        Raises:
            DataError: If a sample cannot be read, or samples are not alike.
        """
        return iter(())

    def formatted(self, read: ReadConfig) -> tuple[SampleDataset, list[str]]:
        """The samples in the form in which they are stored and augmented.

        Args:
            read: How samples are read, with the `value_range` of the training samples if they have more than 8 bits.

        Returns:
            The data set, and one sentence for each decision.

        Raises:
            DataError: If the samples can be read in several ways.
        """
        return self, []

    def needs_workers(self, memory: float) -> bool:
        """Whether reading is so slow that loader processes make it faster.

        Args:
            memory: Bytes of memory that are available.
        """
        return False

    def loaded(self, in_memory: bool) -> SampleDataset:
        """The data set in the form in which batches are read from it.

        Args:
            in_memory: Whether to decode images into memory.

        Returns:
            The data set, or an `ArrayDataset` of its samples.
        """
        return self

    def without_unreadable(self) -> tuple[SampleDataset, list[str]]:
        """Leaves out images that cannot be read.

        Returns:
            The data set of the others, and one line for each that was left out.
        """
        return self, []

    def cached(self, cache: ImageCache, split: str, drop_unreadable: bool) -> CachedSplit:
        """The decoded images in a cache, which are decoded into it first where they are missing.

        Args:
            cache: The cache.
            split: Name of the split.
            drop_unreadable: Leave out images that cannot be read.

        Raises:
            ConfigurationError: If the samples are not images that are decoded.
        """
        raise ConfigurationError(
            f"Expected argument `cache` to be None for source {cache.source!r}, but got {cache.given!r}: it keeps images "
            "that are decoded from files, and these come as arrays or from a data set of yours."
        )

    def sample_digests(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8] | None:
        """A digest of the content of each sample, computed once.

        Args:
            indices: Positions of the samples, in order; None for all.

        Returns:
            Shape ``(n, 16)``, zero for a file that cannot be read; None if it would take reading all samples of a custom
            data set.
        """
        if self._digests is None:
            self._digests = self._sample_digests()
        return self._digests if self._digests is None or indices is None else self._digests[list(indices)]

    def _sample_digests(self) -> NDArray[np.uint8] | None:
        return None

    def fingerprint(self) -> str:
        """Identifies the content of the samples and their order, so that a resumed run keeps its classes.

        Of files, arrays and the images that libraries store, all bytes enter it. If `fingerprint_parts` returns None, as for
        custom data sets, 16 evenly spaced samples are read twice. If both readings agree, their values enter the
        fingerprint, else (random transforms) their shapes.

        Returns:
            32 hexadecimal digits.
        """
        parts = self.fingerprint_parts()
        digest = hashlib.blake2b(digest_size=16)
        for part in self.probed_parts() if parts is None else parts:
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.hexdigest()

    def probed_parts(self) -> Iterator[bytes]:
        """Number, shapes and, unless they are random, values of up to 16 evenly spaced samples."""
        count = len(self)
        yield str(count).encode()
        indices = sorted({round(i * (count - 1) / (PROBES - 1)) for i in range(PROBES)})
        reads = [(self[index][0], self[index][0]) for index in indices]
        # a single agreement may be chance, as with a random flip
        fixed = all(tensor_bytes(first) == tensor_bytes(second) for first, second in reads)
        for index, (first, _) in zip(indices, reads, strict=True):
            yield f"{index} {tuple(first.shape)} {first.dtype}".encode()
            if fixed:
                yield tensor_bytes(first)

    def content_key(self, options: str = "") -> str:
        """Identifies the samples, their order and labels.

        Args:
            options: Settings that also enter the key.

        Returns:
            32 hexadecimal digits.
        """
        digest = hashlib.blake2b(f"{self.fingerprint()}{options}".encode(), digest_size=16)
        if (labels := self.labels) is not None:
            digest.update(tensor_bytes(labels))
        return digest.hexdigest()

    def __getitem__(self, index: Any) -> tuple[Tensor, Any]:
        """One sample, as `read` gives it."""
        return self.read(index)
