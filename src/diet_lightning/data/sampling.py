"""The order of an epoch, as a function of (seed, epoch), and a loader whose position is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from diet_lightning.data.batch import DatumBatch
from diet_lightning.data.dataset import ArrayDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.utilities.device_memory import GIB, available_memory
from diet_lightning.utilities.seeding import derive_seed


class EpochSampler(DistributedSampler[Any]):
    """A rank's share of the samples: shuffled by (seed, epoch), or in order.

    Rank r takes every `num_replicas`-th sample from r on; the first few stand in again at the end where N does not
    divide. So a sample is an original, not a repeat, exactly if ``position % num_replicas == rank``, and one step of
    all ranks together holds the samples that one process would take with the total batch.

    Args:
        dataset: The indexed data set.
        batch_size: Samples a batch. A last batch of one sample gets a second one, since batch norm cannot train on one.
        num_replicas: Ranks.
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
        self._base_seed = seed
        self._companion = int(shuffle and batch_size > 1 and self.num_samples % batch_size == 1)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Fixes the order; the parent seeds its shuffle with ``seed + epoch``, where neighbouring seeds would collide."""
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


class BlockSampler(DistributedSampler[Any]):
    """A rank's share of the batches that one process would read in order: every batch is the same on any number of ranks.

    So the network computes the same bits, which may depend on what is computed together. Where the ranks do not divide the
    batches, some are read twice, so that all ranks take the same number of steps.

    Args:
        dataset: The indexed data set.
        batch_size: Samples a batch.
        num_replicas: Ranks.
        rank: This rank.
        blocks: Numbers of the batches to read, ascending, at least one; batch b begins with sample ``b * batch_size``.
    """

    def __init__(
        self, dataset: IndexedDataset, batch_size: int, num_replicas: int, rank: int, blocks: NDArray[np.int64]
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)
        # a short batch at the end of the data is also the last of its rank, as the loader cuts batches by their length
        share = np.resize(blocks, -(-len(blocks) // num_replicas) * num_replicas)[rank::num_replicas]
        self._ranges = [range(n * batch_size, min((n + 1) * batch_size, len(dataset))) for n in share.tolist()]

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank."""
        return chain.from_iterable(self._ranges)

    def __len__(self) -> int:
        """Samples of this rank."""
        return sum(map(len, self._ranges))


class ResumableLoader(DataLoader[DatumBatch]):
    """A loader that Lightning may stop and resume in mid-epoch.

    Lightning asks for the iterator before it restores the epoch and the position that its sampler needs, and workers
    would then fetch the wrong samples ahead; so the iteration begins with the first batch that is asked for.
    """

    def __iter__(self) -> Iterator[DatumBatch]:  # type: ignore[override]
        """Batches of the sampler's epoch, from its position on."""
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep: order and position follow from the Trainer's progress. Without it Lightning warns."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""


class MemoryLoader(ResumableLoader):
    """Training batches cut out of arrays by the whole, on the arrays' own device: nothing is collated or copied there.

    Args:
        arrays: Inputs and labels on a device.
        dataset: The same as an indexed data set.
        batch_size: Samples a batch.
        **options: As for `DataLoader`; the sampler's order goes to the device once an epoch.
    """

    def __init__(self, arrays: ArrayDataset, dataset: IndexedDataset, batch_size: int, **options: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, **options)
        self._arrays = arrays
        self._size = batch_size

    def __iter__(self) -> Iterator[DatumBatch]:  # type: ignore[override]
        """Batches of the sampler's epoch, from its position on."""
        arrays = self._arrays
        order = torch.tensor(list(self.sampler), dtype=torch.int64).to(arrays.inputs.device)
        for start in range(0, len(order), self._size):
            rows = order[start : start + self._size]
            yield DatumBatch(arrays.inputs[rows], rows, arrays.labels[rows])


def to_device_if_fits(
    arrays: ArrayDataset, device: torch.device, asked: bool | None, reserved: int = 0
) -> ArrayDataset:
    """Arrays on the device that trains, where there is room.

    Args:
        arrays: Inputs and labels in the CPU's memory.
        device: The device.
        asked: None places them on CUDA if they take at most a quarter of the memory that is left; True if they fit, and
            warns where they do not; False never.
        reserved: Bytes of what is left that training will take.

    Returns:
        Arrays on the device, or the same.
    """
    if device.type != "cuda" or asked is False:
        return arrays
    size, left = arrays.nbytes + arrays.labels.nbytes, max(0, (available_memory(device) or 0) - reserved)
    if size <= (left if asked else left / 4):
        with suppress(torch.OutOfMemoryError):
            return ArrayDataset(arrays.inputs.to(device), arrays.labels.to(device))
    if asked:
        rank_zero_warn(
            f"The training set of {size / GIB:.2f} GiB does not fit into the {left / GIB:.2f} GiB that {device} has left: it "
            "stays in the CPU's memory; set `on_device` to false, or take a smaller `image_size`."
        )
    return arrays


def identity_collate(batch: DatumBatch) -> DatumBatch:
    """Collate function: `IndexedDataset` already returns whole batches."""
    return batch
