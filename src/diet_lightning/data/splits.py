"""Opens the splits of a source: checked, reduced to a subset, indexed, and held in memory if they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from diet_lightning.data.batch import NO_LABEL, has_labels
from diet_lightning.data.cache import ImageCache
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.duplicates import duplicate_notes
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.source import Source
from diet_lightning.data.value_survey import ValueSurvey
from diet_lightning.errors import ConfigurationError, DataError

MEMORY_LIMIT = 2**30  # bytes; a decoded data set up to this size is kept in memory by default


@dataclass(frozen=True)
class OpenedSplits:
    """The splits of a source.

    Attributes:
        indexed: Name → the indexed split; if only one of val and test exists, both names refer to it.
        fingerprint: Fingerprint of the training samples and their order.
        num_classes: Number of the user's classes; None if the training samples have no labels.
        read: How the splits were read, with the range of values that was found.
        notes: One sentence for each decision on what the data mean, and for each kind of duplicates.
    """

    indexed: dict[str, IndexedDataset]
    fingerprint: str
    num_classes: int | None
    read: ReadConfig
    notes: list[str]


def as_read(source: Source, read: ReadConfig) -> tuple[Source, ReadConfig, list[str]]:
    """The splits of a source in the form in which samples are stored.

    Args:
        source: The data sets.
        read: How they are read.

    Returns:
        The same source with other data sets; `read` with the range of values of the training samples if they have more
        than 8 bits, and with the color ``"auto"`` only if all images are gray; and one sentence for each decision.

    Raises:
        DataError: If the samples can be read in several ways.
    """
    notes, is_given = [*source.notes], read.value_range is not None
    given = {"train": source.train, "val": source.val, "test": source.test}
    splits = [split for split in given.values() if split is not None]
    if read.color == "auto" and not all(isinstance(split, ImageDataset) and split.are_gray for split in splits):
        read = replace(read, color="rgb")
    made: dict[str, Any] = {}
    for split, dataset in given.items():
        if dataset is None:
            continue
        values = ValueSurvey.of(split, dataset.wide_parts(), read.pixel_range)
        if values is not None and read.value_range is None:
            if split != "train":
                raise DataError(
                    f"The {split} split has values of more than 8 bits, from {values.low:.6g} to {values.high:.6g}, but training "
                    "samples have 8 bits: store both alike, or set `read.value_range` to a range for both."
                )
            found, said = values.range_found()
            read, notes = replace(read, value_range=list(found)), [*notes, *said]
        elif values is not None and read.pixel_range is not None:
            notes += values.clipped_notes(read.pixel_range, is_given)
        elif dataset.array_dtype == torch.uint8 and read.value_range is not None and not is_given:
            raise DataError(
                f"Samples of the {split} split are uint8, but training samples have values that are scaled from "
                f"{read.value_range[0]:.6g} to {read.value_range[1]:.6g}: store both alike, or set `read.value_range` to a range "
                "for both."
            )
        made[split], said = dataset.formatted(read)
        told = {_without_numbers(note) for note in notes}
        notes += [note for note in said if _without_numbers(note) not in told]
    return replace(source, **made), read, notes


def _without_numbers(note: str) -> str:
    """A note about another split may differ in its numbers only."""
    return re.sub(r"\d+", "", note)


def check_shapes(indexed: Mapping[str, IndexedDataset], image_size: int | None) -> None:
    """Compares the first sample of each split with the first training sample.

    Args:
        indexed: Name → the indexed split.
        image_size: Side of the network's input, to which images are brought, or None.

    Raises:
        DataError: If the network would see samples of another kind or, but for images with `image_size`, of another shape.
    """
    train = indexed["train"][0].input
    for name, split in indexed.items():
        sample = split[0].input
        is_image = sample.ndim == train.ndim == 3
        if is_image and len(sample) != len(train):
            raise DataError(
                f"Images of the {name} split have {len(sample)} channel(s), but training images have {len(train)}: convert "
                "them alike."
            )
        if sample.shape != train.shape and not (is_image and image_size is not None):
            cure = "set `image_size` to bring all images to one size" if is_image else "give all samples one shape"
            raise DataError(
                f"Samples of the {name} split have shape {tuple(sample.shape)}, but training samples have "
                f"{tuple(train.shape)}: {cure}."
            )
        if sample.dtype != train.dtype and not is_image:
            raise DataError(
                f"Samples of the {name} split are {sample.dtype}, but training samples are {train.dtype}: store both alike."
            )


def fill_cache(source: Source, read: ReadConfig, cache: ImageCache, drop_unreadable: bool) -> None:
    """Decodes all splits of a source into a cache, if it does not hold them yet.

    Args:
        source: The data sets.
        read: How they are read.
        cache: The cache.
        drop_unreadable: Leave out images that cannot be read.

    Raises:
        DataError: If an image cannot be read, or the disk is full.
        ConfigurationError: If the source does not consist of image files, or the cache is another source's.
    """
    source, _, _ = as_read(source, read)
    for split, dataset in {"train": source.train, "val": source.val, "test": source.test}.items():
        if dataset is not None:
            dataset.cached(cache, split, drop_unreadable)


def open_splits(
    source: Source,
    name: str,
    read: ReadConfig,
    subset: int | None = None,
    seed: int = 0,
    keep: bool | None = None,
    cache: str | None = None,
    drop_unreadable: bool = False,
) -> OpenedSplits:
    """Opens all splits of a source together.

    Args:
        source: The data sets.
        name: Name of the source in messages.
        read: How the data are read.
        subset: Keep this many training samples, drawn by `seed`; None for all.
        seed: Seed of the subset.
        keep: Keep decoded images in memory; None keeps them if they take at most 1 GiB.
        cache: Folder of decoded images, or None.
        drop_unreadable: Leave out, with a warning, images that cannot be read.

    Returns:
        The splits.

    Raises:
        DataError: If the data cannot give every sample a class of its own.
        ConfigurationError: If an argument does not suit the data.
    """
    source, read, notes = as_read(source, read)
    images = None if cache is None else ImageCache(cache, name)
    train = _readable(source.train, "train", images, drop_unreadable, notes)
    if subset is not None:
        train = train.subset(_subset(train, subset, seed))
    if len(IndexedDataset(train)) < 2:
        raise DataError(f"Expected at least 2 training samples, but source {name!r} has 1: DIET distinguishes samples.")
    identity = train.fingerprint()
    if keep is None:
        keep = cache is None and train.nbytes is not None and train.nbytes <= MEMORY_LIMIT
    indexed, digests = {"train": IndexedDataset(train.loaded(keep))}, {"train": train.sample_digests()}
    for split, dataset in {"val": source.val, "test": source.test}.items():
        if dataset is not None:
            readable = _readable(dataset, split, images, drop_unreadable, notes)
            indexed[split], digests[split] = IndexedDataset(readable.loaded(keep), split), readable.sample_digests()
    # as in the paper, probes are measured on the test split if it is the only one
    for split, other in {"val": "test", "test": "val"}.items():
        if split not in indexed and other in indexed:
            indexed[split] = indexed[other]
    classes = _count_classes(indexed, source.class_names)
    return OpenedSplits(indexed, identity, classes, read, [*notes, *duplicate_notes(digests)])


def _count_classes(indexed: dict[str, IndexedDataset], class_names: Sequence[str] | None) -> int | None:
    labels = [split.dataset.labels for split in indexed.values()]
    if has_labels(labels[0]) is False:
        return None
    if class_names is not None:
        return len(class_names)
    highest = max((int(each.max()) for each in labels if each is not None), default=NO_LABEL)
    return highest + 1 if labels[0] is not None and highest >= 0 else None


def unlabelled_note(opened: OpenedSplits) -> list[str]:
    """A sentence on the splits without labels beside labelled training samples."""
    missing: dict[int, str] = {}  # one split may replace another, under both names
    for name, split in opened.indexed.items():
        if has_labels(split.dataset.labels) is False:
            missing.setdefault(id(split), name)
    if opened.num_classes is None or not missing:
        return []
    return [
        f"No sample of the {' and '.join(missing.values())} split has a label: it is left out of what needs labels."
    ]


def _readable(
    dataset: SampleDataset, split: str, cache: ImageCache | None, drop_unreadable: bool, notes: list[str]
) -> SampleDataset:
    """A split, from the cache if there is one, and without unreadable images if requested, which adds a note."""
    dropped: list[str] = []
    if cache is not None:
        opened = dataset.cached(cache, split, drop_unreadable)
        dataset, dropped = opened.data, opened.dropped
    elif drop_unreadable:
        dataset, dropped = dataset.without_unreadable()
    if dropped:
        rank_zero_warn(
            f"Left out {len(dropped)} unreadable image(s) of the {split} split; the rest keep their order:\n"
            + "\n".join(dropped)
        )
        notes.append(f"{len(dropped)} unreadable image(s) of the {split} split were left out (drop_unreadable).")
    return dataset


def _subset(train: SampleDataset, size: int, seed: int) -> list[int]:
    count = len(IndexedDataset(train))
    if size > count:
        raise ConfigurationError(
            f"Expected argument `subset` to be at most the {count} training samples, but got {size}."
        )
    return sorted(np.random.default_rng(seed).permutation(count)[:size].tolist())
