"""The labels that samples of custom data sets really carry, compared with those that the data sets list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from tqdm import tqdm

from diet_lightning.data.adapters import MapDataset
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.batch import NO_LABEL, has_labels
from diet_lightning.data.columns import choose_columns, join_names
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.labels import EncodedLabels, encode_labels, is_missing, plain_label
from diet_lightning.data.metadata import class_names_of, features_of, listings_of
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.source import Source
from diet_lightning.errors import DataError, DIETError

PROBES = 64  # evenly spaced samples whose labels are compared with the listed ones
READ_TO_LABEL = 2**16  # samples that are read for their labels, if these are integers that nothing lists
UNLISTED = object()  # such integers of more samples: they are found as the samples are read


def resolve_labels(source: Source, read: ReadConfig) -> Source:
    """Replaces the labels of custom data sets by those that their samples carry, as classes.

    A transform of the target, a subclass or a wrapper may change the labels that an attribute such as ``targets`` lists. So
    up to 64 samples are read, and where they disagree with the listing, or nothing lists labels, all samples are read once:
    of large data sets of integers that nothing lists only the 64.

    Args:
        source: Data sets passed by `DIETDataModule.from_datasets`.
        read: Names the columns of samples that are mappings.

    Returns:
        The data sets with int64 labels, -1 for samples without one, the names of the classes, and notes.

    Raises:
        DataError: If a sample cannot be read, or a label is not among the names.
    """
    notes = list(source.notes)
    given = {"train": source.train, "val": source.val, "test": source.test}
    splits = {split: _with_columns(dataset, read, notes) for split, dataset in given.items() if dataset is not None}
    named = None if source.class_names is None else len(source.class_names)
    columns = {split: _column(split, dataset, named or len(dataset), notes) for split, dataset in splits.items()}
    names = {split: _class_names(dataset, columns[split]) for split, dataset in splits.items()}
    encoded = _encoded(columns, names, source.class_names)
    unlisted = [split for split, column in columns.items() if column is UNLISTED]
    if encoded.notes and unlisted and len(unlisted) < len(splits):  # the others are numbered in the same way
        columns |= {split: _collected(splits[split]) for split in unlisted}
        encoded = _encoded(columns, names, source.class_names)
    for split, labels in encoded.labels.items():
        splits[split] = _relabelled(splits[split], columns[split], labels)
    changed: dict[str, Any] = splits
    return replace(source, **changed, class_names=encoded.class_names, notes=[*notes, *encoded.notes])


def _encoded(
    columns: Mapping[str, Any], names: Mapping[str, Sequence[str] | None], given: Sequence[str] | None
) -> EncodedLabels:
    listed = {split: column for split, column in columns.items() if column is not UNLISTED}
    if given is not None:
        return encode_labels(listed, given)
    return encode_labels(*join_names(listed, {split: names[split] for split in listed}))


def _with_columns(dataset: SampleDataset, read: ReadConfig, notes: list[str]) -> SampleDataset:
    """A data set of mappings with the keys of its inputs and labels."""
    if not isinstance(dataset, MapDataset):
        return dataset
    sample = None
    with suppress(Exception):  # it is raised where the sample is needed
        sample = dataset.dataset[0]
    if not isinstance(sample, Mapping):
        return dataset
    features = features_of(dataset.dataset) or {}
    # a transform may give samples other keys than the columns
    keys = {key: features.get(key) for key in sample}
    image, label, said = choose_columns(keys, read, f"data set {dataset.kind}")
    notes += [note for note in said if note not in notes]
    return dataset.with_columns(image, label)


def _class_names(dataset: SampleDataset, column: Any) -> Sequence[str] | None:
    """Names of the classes that a data set keeps."""
    if not isinstance(dataset, MapDataset):
        return None
    if (features := features_of(dataset.dataset)) is not None:
        return getattr(features.get(dataset.columns[1] or ""), "names", None)
    # labels that differ from the listed ones are not those that the names are of
    return None if isinstance(column, _Collected) else class_names_of(dataset.dataset)


def _column(split: str, dataset: SampleDataset, classes: int, notes: list[str]) -> Any:
    """N labels as the data set keeps them, `UNLISTED`, or None without labels; `classes` is the most that there can be."""
    if not isinstance(dataset, MapDataset):
        return dataset.labels if has_labels(dataset.labels) else None
    items = dataset.dataset
    if type(items).__getitem__ is TensorDataset.__getitem__:
        return items.tensors[1] if len(items.tensors) > 1 else None
    carried = {}
    for n in np.linspace(0, len(dataset) - 1, min(PROBES, len(dataset))).round().astype(int).tolist():
        with suppress(DIETError):  # it is raised where the sample is needed
            carried[n] = plain_label(dataset.pair(n)[1])
    differing = None
    for name, column in listings_of(items, dataset.columns[1]):
        wrong = next((n for n, label in carried.items() if not _equal(plain_label(column[n]), label)), None)
        if wrong is None:
            return column
        if _is_class(plain_label(column[wrong]), classes):
            differing = differing or (name, wrong, column[wrong])
    if encode_labels({split: list(carried.values())}).labels[split] is None:
        return list(carried.values())  # targets of another kind, so that the others need not be read
    if differing is not None:
        name, n, value = differing
        notes.append(
            f"Labels that {name!r} lists differ from those of the samples in the {split} split (sample {n}: "
            f"{plain_label(value)!r} and {carried[n]!r}): those of the samples are used, all of which were read once."
        )
        return _collected(dataset)
    if all(label is None for label in carried.values()):
        return None
    is_cheap = isinstance(items, list | tuple) or len(dataset) <= READ_TO_LABEL
    if is_cheap or not all(_is_class(label, classes) for label in carried.values()):
        return _collected(dataset)
    return UNLISTED


class _Collected(list[Any]):
    """Labels that were read from all samples."""


def _collected(dataset: Any) -> list[Any]:
    """The labels of all samples of a `MapDataset`."""
    indices = tqdm(range(len(dataset)), "reading labels", leave=False, delay=2)
    return _Collected(plain_label(dataset.pair(n)[1]) for n in indices)


def _relabelled(dataset: SampleDataset, column: Any, labels: Tensor | None) -> SampleDataset:
    if column is None:
        return dataset
    if labels is None:
        labels = torch.full((len(dataset),), NO_LABEL)
    if len(labels) != len(dataset):
        raise DataError(f"Expected one label per sample, but got {len(labels)} labels for {len(dataset)} samples.")
    with suppress(DataError, ValueError):  # listed labels that are no classes
        if (own := dataset.labels) is not None and torch.equal(own, labels):
            return dataset
    if isinstance(dataset, MapDataset):
        return dataset.with_labels(labels)
    return dataset if (arrays := dataset.arrays) is None else ArrayDataset(arrays.inputs, labels, arrays.origin)


def _is_class(label: Any, count: int) -> bool:
    """Whether a label can stay: it is missing, or an integer that can be one of the classes of so many samples."""
    if label is None or label == NO_LABEL:
        return True
    return isinstance(label, int) and 0 <= label < count


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(first == second) or (is_missing(first) and is_missing(second))
    except (TypeError, ValueError, RuntimeError):  # objects of a user's own
        return False
