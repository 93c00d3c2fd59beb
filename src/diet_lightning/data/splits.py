"""A source's splits, opened: readable, cut to a subset, indexed, and held where they are read fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import Dataset, Subset, TensorDataset

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.cache import ImageCache, MappedDataset
from diet_lightning.data.fingerprint import fingerprint
from diet_lightning.data.images import ImageDataset, decoded_bytes, in_memory
from diet_lightning.data.indexed import ArrayDataset, IndexedDataset
from diet_lightning.data.metadata import labels_of
from diet_lightning.data.sources import Source
from diet_lightning.errors import ConfigurationError, DataError

MEMORY_LIMIT = 2**30  # bytes; a decoded set up to here is kept in memory by default


@dataclass(frozen=True)
class OpenedSplits:
    """The splits of a source.

    Attributes:
        indexed: Name → the split as it is read; where there is but one of val and test, both names have it.
        originals: Name → what knows the split's names and what identifies it.
        fingerprint: Of the training samples and their order.
    """

    indexed: dict[str, IndexedDataset]
    originals: dict[str, Dataset[Any]]
    fingerprint: str

    def count_classes(self, class_names: Sequence[str] | None) -> int | None:
        """Number of the user's classes.

        Args:
            class_names: Their names, where the source has them.

        Returns:
            How many names, or else labels, there are; None without labels of the training samples.
        """
        if class_names is not None:
            return len(class_names)
        labels = [labels_of(split.dataset) for split in self.indexed.values()]
        highest = max((int(each.max()) for each in labels if each is not None), default=NO_LABEL)
        return highest + 1 if labels[0] is not None and highest >= 0 else None


def open_splits(
    source: Source,
    name: str,
    subset: int | None = None,
    seed: int = 0,
    keep: bool | None = None,
    cache: str | None = None,
    drop_unreadable: bool = False,
) -> OpenedSplits:
    """Opens all splits of a source together.

    Args:
        source: The data sets.
        name: What messages call it.
        subset: Keep this many training samples, drawn by `seed`; None for all.
        seed: Of the subset.
        keep: Keep decoded images in memory; None does if they take at most 1 GiB.
        cache: Folder of decoded images, or None.
        drop_unreadable: Leave out, with a warning, images that cannot be read.

    Returns:
        The splits.

    Raises:
        DataError: If the data cannot give every sample a class of its own.
        ConfigurationError: If an argument does not suit the data.
    """
    images = None if cache is None else ImageCache(cache, name)
    given, train = _readable(source.train, "train", name, images, drop_unreadable)
    if subset is not None:
        chosen = _subset(given, subset, seed)
        given, train = _taken(given, chosen), None if train is None else _taken(train, chosen)
    if len(IndexedDataset(given)) < 2:
        raise DataError(f"Expected at least 2 training samples, but source {name!r} has 1: DIET tells samples apart.")
    identity = fingerprint(given)
    keep = _keeps_in_memory(given, keep, images)
    indexed = {"train": IndexedDataset(_held(given if train is None else train, keep))}
    originals = {"train": _original(given, indexed["train"])}
    for split, dataset in {"val": source.val, "test": source.test}.items():
        if dataset is not None:
            readable, mapped = _readable(dataset, split, name, images, drop_unreadable)
            indexed[split] = IndexedDataset(_held(readable if mapped is None else mapped, keep))
            originals[split] = _original(readable, indexed[split])
    # as in the paper, probes are watched on the test split where there is no other
    for split, other in {"val": "test", "test": "val"}.items():
        if split not in indexed and other in indexed:
            indexed[split], originals[split] = indexed[other], originals[other]
    return OpenedSplits(indexed, originals, identity)


def _readable(
    dataset: Dataset[Any], split: str, source: str, cache: ImageCache | None, drop_unreadable: bool
) -> tuple[Dataset[Any], Dataset[Any] | None]:
    """A split without its unreadable images where that is asked for, and its decoded images where they are cached."""
    mapped: Dataset[Any] | None = None
    dropped: list[str] = []
    if cache is not None:
        if not isinstance(dataset, ImageDataset):
            raise ConfigurationError(
                f"Expected argument `cache` to be None for source {source!r}, but got {cache.given!r}: it keeps images "
                "that are decoded from files, and these come as arrays or from a data set of yours."
            )
        opened = cache.open(dataset, split, drop_unreadable)
        dataset, mapped, dropped = opened.kept, opened.data, opened.dropped
    elif drop_unreadable and isinstance(dataset, ImageDataset):
        dataset, dropped = dataset.without_unreadable()
    if dropped:
        rank_zero_warn(
            f"Left out {len(dropped)} unreadable image(s) of the {split} split; the rest keep their order:\n"
            + "\n".join(dropped)
        )
    return dataset, mapped


def _subset(train: Dataset[Any], size: int, seed: int) -> list[int]:
    count = len(IndexedDataset(train))
    if size > count:
        raise ConfigurationError(
            f"Expected argument `subset` to be at most the {count} training samples, but got {size}."
        )
    return sorted(np.random.default_rng(seed).permutation(count)[:size].tolist())


def _keeps_in_memory(train: Dataset[Any], keep: bool | None, cache: ImageCache | None) -> bool:
    if keep is not None or cache is not None or not isinstance(train, ImageDataset):
        return bool(keep)
    return decoded_bytes(train) <= MEMORY_LIMIT


def _taken(dataset: Dataset[Any], indices: list[int]) -> Dataset[Any]:
    if isinstance(dataset, ImageDataset):
        return dataset.subset(indices)
    return ArrayDataset(*dataset[indices]) if isinstance(dataset, ArrayDataset) else Subset(dataset, indices)


def _held(dataset: Dataset[Any], keep: bool) -> Dataset[Any]:
    """The data set as it is read: decoded into memory where asked, tensors by whole batches."""
    if isinstance(dataset, ImageDataset) and keep:
        return in_memory(dataset)
    if isinstance(dataset, MappedDataset) and keep:
        return ArrayDataset(dataset.inputs.clone(), dataset.labels)
    if isinstance(dataset, TensorDataset) and ((labels := labels_of(dataset)) is not None or len(dataset.tensors) == 1):
        return ArrayDataset(dataset.tensors[0], labels)
    return dataset


def _original(given: Dataset[Any], indexed: IndexedDataset) -> Dataset[Any]:
    """What knows the names: the data set before it was decoded, unless its images would then lie in memory twice."""
    held: Dataset[Any] = indexed.dataset
    return held if isinstance(given, ImageDataset) and hasattr(given.items, "data") else given
