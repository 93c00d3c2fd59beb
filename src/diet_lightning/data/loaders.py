"""Loaders of whole batches, resumable within an epoch: slices of arrays, or samples read by processes."""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pickle import PicklingError
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.batch import DatumBatch
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.sampling import BlockSampler, EpochSampler, StepSampler
from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms.geometry import Geometry
from diet_lightning.utilities.device_memory import GIB, available_memory

STREAMING_WORKERS = 8


class PredictionStore(ABC):
    """A callback that stores predictions of this and of earlier runs; `DIETDataModule` skips what it has."""

    @abstractmethod
    def stored_samples(self, trainer: Trainer, count: int) -> NDArray[np.bool_]:
        """Which samples are predicted already; called when the loader of `predict` is made, with the weights loaded.

        Args:
            trainer: The Trainer that predicts.
            count: N of the split that is predicted.

        Returns:
            Shape ``(N,)``.
        """


def samples_in_all_stores(trainer: Trainer | None, count: int) -> NDArray[np.bool_]:
    """Which samples all `PredictionStore` callbacks of a predicting Trainer have; none without such a callback.

    Args:
        trainer: The Trainer, or None.
        count: N of the split that is predicted.

    Returns:
        Shape ``(N,)``.
    """
    stored = []
    if trainer is not None and trainer.predicting:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        stored = [each.stored_samples(trainer, count) for each in callbacks if isinstance(each, PredictionStore)]
    done: NDArray[np.bool_] = np.logical_and.reduce(stored or [np.zeros(count, np.bool_)])
    return done


class WorkerLoader(DataLoader[DatumBatch]):
    """A loader that says in a sentence if its data set cannot be sent to loader processes."""

    def __iter__(self) -> Iterator[DatumBatch]:  # type: ignore[override]
        """Starts the loader processes, if there are any.

        Raises:
            ConfigurationError: If they are spawned and not forked, and the data set cannot be pickled.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Got pickle error")  # torch's, besides the error
                return super().__iter__()
        except (PicklingError, AttributeError, TypeError) as error:
            if self.num_workers == 0:
                raise
            raise ConfigurationError(
                f"The data set cannot be sent to {self.num_workers} loader processes ({error}): define its functions at the top "
                "level of a module instead of as lambdas or inside functions, or set `num_workers` to 0."
            ) from error


class ResumableLoader(WorkerLoader):
    """A loader that Lightning may stop and resume in mid-epoch.

    Lightning creates the iterator before it restores the epoch and the position that the sampler needs, and workers would
    prefetch the wrong samples. So the iteration starts when the first batch is requested.
    """

    def __iter__(self) -> Iterator[DatumBatch]:  # type: ignore[override]
        """Batches of the sampler's epoch, from its position on."""
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Empty: order and position follow from the Trainer's progress. Lightning warns if the method is missing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Does nothing, since the state is empty."""


class MemoryLoader(ResumableLoader):
    """Training batches that are indexed from arrays on the arrays' device, without collating or copying samples.

    Args:
        arrays: Inputs and labels on a device.
        dataset: The same samples as an indexed data set.
        batch_size: Samples per batch.
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
    """Copies arrays to the device that trains, if they fit.

    Args:
        arrays: Inputs and labels in the CPU's memory.
        device: The device.
        asked: None copies them to CUDA if they take at most a quarter of the free memory; True copies them if they fit,
            and warns if they do not; False never copies them.
        reserved: Bytes of the free memory that training will need.

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


@dataclass(frozen=True)
class SplitLoaders:
    """Makes the data loaders of one process.

    Attributes:
        batch_size: Samples per step and device.
        num_workers: Loader processes; None for the number that suits the data set.
        num_replicas: Ranks that share the samples.
        rank: This rank.
    """

    batch_size: int
    num_workers: int | None
    num_replicas: int
    rank: int

    def arrays_of(self, dataset: IndexedDataset) -> ArrayDataset | None:
        """The arrays of the data set, if this process indexes batches from them."""
        arrays = dataset.dataset.arrays
        return arrays if arrays is not None and not arrays.has_sizes and self._workers(dataset) == 0 else None

    def for_training(
        self,
        dataset: IndexedDataset,
        seed: int,
        position: Callable[[], int],
        arrays: ArrayDataset | None,
        geometry: Geometry | None,
    ) -> ResumableLoader:
        """Batches shuffled by (seed, epoch).

        Args:
            dataset: The training split.
            seed: Seed of the order.
            position: Returns the number of samples of the current epoch that a resumed run has already seen.
            arrays: The same samples on the device that trains, or None.
            geometry: What becomes of each image if the data set `has_sizes`.

        Raises:
            ConfigurationError: If a batch is larger than the data of a device.
        """
        sampler = EpochSampler(dataset, self.batch_size, self.num_replicas, self.rank, shuffle=True, seed=seed)
        if self.batch_size > len(sampler):
            raise ConfigurationError(
                f"batch_size={self.batch_size} is larger than the {len(sampler)} training samples of a device: set "
                f"`batch_size` to at most {len(sampler)}."
            )
        sampler.position = position
        if arrays is not None:
            return MemoryLoader(arrays, dataset, batch_size=self.batch_size, sampler=sampler)
        if not dataset.dataset.has_sizes:
            return ResumableLoader(dataset, **self._options(dataset, sampler))
        steps = StepSampler(dataset, self.batch_size, self.num_replicas, self.rank, shuffle=True, seed=seed)
        steps.position = position
        viewed = IndexedDataset(dataset.dataset, dataset.measured, geometry)
        return ResumableLoader(viewed, **{**self._options(dataset, steps), "batch_size": None})

    def in_order(self, dataset: IndexedDataset, geometry: Geometry | None) -> DataLoader[DatumBatch]:
        """All samples in order; the first few twice if N is not a multiple of the number of ranks.

        Args:
            dataset: A split.
            geometry: What becomes of each image if the data set `has_sizes`; None keeps them as they are stored.
        """
        dataset = IndexedDataset(dataset.dataset, dataset.measured, geometry)
        sampler = EpochSampler(dataset, self.batch_size, self.num_replicas, self.rank, shuffle=False)
        return WorkerLoader(dataset, **self._options(dataset, sampler))

    def without(
        self, dataset: IndexedDataset, done: NDArray[np.bool_], geometry: Geometry | None
    ) -> DataLoader[DatumBatch]:
        """The batches, in order, that hold a sample which is not done yet; the first batch if all are done.

        Args:
            dataset: A split.
            done: Which samples to leave out, shape ``(N,)``.
            geometry: As for `in_order`.
        """
        dataset = IndexedDataset(dataset.dataset, dataset.measured, geometry)
        blocks = np.unique(np.flatnonzero(~done) // self.batch_size)
        if len(blocks) == 0:
            blocks = np.zeros(1, np.int64)  # without a batch Lightning would call no hook
        sampler = BlockSampler(dataset, self.batch_size, self.num_replicas, self.rank, blocks)
        return WorkerLoader(dataset, **self._options(dataset, sampler))

    def _workers(self, dataset: IndexedDataset) -> int:
        if self.num_workers is not None:
            return self.num_workers
        memory = available_memory(torch.device("cpu")) or math.inf
        return min(STREAMING_WORKERS, os.cpu_count() or 1) if dataset.dataset.needs_workers(memory) else 0

    def _options(self, dataset: IndexedDataset, sampler: Sampler[Any]) -> dict[str, Any]:
        workers = self._workers(dataset)
        return {
            "batch_size": self.batch_size,
            "sampler": sampler,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": identity_collate,
        }
