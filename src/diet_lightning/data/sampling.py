"""The samples that a rank reads, and their order, which is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from diet_lightning.data.indexed import IndexedDataset, StepIndices
from diet_lightning.utilities.seeding import derive_seed


class EpochSampler(DistributedSampler[Any]):
    """A rank's share of the samples: shuffled by (seed, epoch), or in order.

    Rank r takes every `num_replicas`-th sample from r on. If N is not a multiple of `num_replicas`, the first few samples are
    repeated at the end. So a sample is an original, not a repeat, exactly if ``position % num_replicas == rank``, and one
    step of all ranks together holds the samples that one process would take with the total batch.

    Args:
        dataset: The indexed data set.
        batch_size: Samples per batch. A last batch of one sample gets a second one, since batch norm cannot train on one.
        num_replicas: Number of ranks.
        rank: This rank.
        shuffle: Whether to shuffle.
        seed: Seed of the order.
    """

    def __init__(
        self,
        dataset: IndexedDataset,
        batch_size: int,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        self.position: Callable[[], int] = int  # samples of this epoch that a resumed run has already seen
        self._base_seed, self._batch_size = seed, batch_size
        self._companion = int(shuffle and batch_size > 1 and self.num_samples % batch_size == 1)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Sets the order. The base class seeds its shuffle with ``seed + epoch``, so runs of neighbouring seeds share orders."""
        self.epoch = epoch
        self.seed = derive_seed(self._base_seed, epoch) - epoch if self.shuffle else 0

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank, from `position()` on."""
        indices: list[int] = list(super().__iter__())
        indices += indices[: self._companion]
        return iter(indices[self.position() :])

    def __len__(self) -> int:
        """Samples of a whole epoch on this rank."""
        return self.num_samples + self._companion


class StepSampler(EpochSampler):
    """The training batches of a rank, each with its position in the training; arguments as for `EpochSampler`."""

    def __iter__(self) -> Iterator[StepIndices]:  # type: ignore[override]
        """Batches, from `position()` on."""
        indices, size = list(super().__iter__()), self._batch_size
        first = self.position() // size
        for n in range(-(-len(indices) // size)):
            position = (self._base_seed, self.epoch, first + n)
            yield StepIndices(indices[n * size : (n + 1) * size], position)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-super().__len__() // self._batch_size)


class BlockSampler(DistributedSampler[Any]):
    """A rank's share of the batches that one process would read in order: every batch is the same on any number of ranks.

    So the network's outputs are bitwise the same, which may depend on the composition of a batch. If the number of batches is
    not a multiple of the number of ranks, some are read twice, so that all ranks take the same number of steps.

    Args:
        dataset: The indexed data set.
        batch_size: Samples per batch.
        num_replicas: Number of ranks.
        rank: This rank.
        blocks: Numbers of the batches to read, ascending, at least one; batch b begins with sample ``b * batch_size``.
    """

    def __init__(
        self, dataset: IndexedDataset, batch_size: int, num_replicas: int, rank: int, blocks: NDArray[np.int64]
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        # a short batch at the end of the data must be the last of its rank, as the loader cuts batches by length
        share = np.resize(blocks, -(-len(blocks) // num_replicas) * num_replicas)[rank::num_replicas]
        self._ranges = [range(n * batch_size, min((n + 1) * batch_size, len(dataset))) for n in share.tolist()]

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank."""
        return chain.from_iterable(self._ranges)

    def __len__(self) -> int:
        """Samples of this rank."""
        return sum(map(len, self._ranges))
