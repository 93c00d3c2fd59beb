"""Labels, names and digests that a data set of a user or a library keeps, by the attributes such data sets have.

No sample is read. Only this module reads such attributes; all other code uses `SampleDataset`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import VisionDataset

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.columns import label_column
from diet_lightning.data.fingerprint import file_digests, relative_names, row_digests
from diet_lightning.data.labels import is_missing, plain_label
from diet_lightning.errors import DataError

LISTS = ("labels", "targets", "_labels")  # attributes that list labels; the last is torchvision's in its newer sets


def to_label(value: Any) -> int:
    """A single label as an integer, -1 for a missing one.

    Raises:
        ValueError: If it is not a single integer.
    """
    label = plain_label(value)
    if is_missing(label):
        return NO_LABEL
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if not isinstance(label, int):
        shown = f"{label:.6g}" if isinstance(label, float) else repr(label)
        raise ValueError(f"expected the label to be an integer, but got {shown}")
    return label


def listings_of(dataset: Any, label: str | None = None) -> Iterator[tuple[str, Any]]:
    """The columns of N values in which a data set may keep its labels; no sample is read.

    Args:
        dataset: A data set, possibly a `Subset`, `ConcatDataset` or `TensorDataset`, one of Hugging Face, or one with
            ``targets`` or ``labels``.
        label: Column of the labels in a data set of Hugging Face; None for the usual one.

    Yields:
        Name and column, as the data set keeps it.
    """
    if isinstance(dataset, Subset):
        rows = list(dataset.indices)
        for name, column in listings_of(dataset.dataset, label):
            yield name, column[rows] if isinstance(column, Tensor | np.ndarray) else [column[n] for n in rows]
    elif isinstance(dataset, ConcatDataset):
        parts = [next(listings_of(part, label), None) for part in dataset.datasets]
        if all(part is not None for part in parts):
            yield parts[0][0], [label for _, column in parts for label in column]  # type: ignore[index,misc]
    elif isinstance(dataset, TensorDataset):
        if len(dataset.tensors) > 1:
            yield "tensors", dataset.tensors[1]
    elif (features := features_of(dataset)) is not None:
        found, _ = label_column(features, label)
        if found is not None and found in features:
            yield found, dataset.with_format(None)[found][:]
    else:
        for name in LISTS:
            kept: Any = getattr(dataset, name, None)
            kept = kept.to_numpy() if hasattr(kept, "to_numpy") else kept  # pandas'
            if isinstance(kept, list | tuple | np.ndarray | Tensor) and len(kept) == len(dataset):
                yield name, kept
        # (path, label) of torchvision's folders
        samples: Any = getattr(dataset, "samples", getattr(dataset, "_samples", None))
        is_list = isinstance(samples, list) and len(samples) == len(dataset)
        if is_list and all(isinstance(sample, tuple) and len(sample) == 2 for sample in samples):
            yield "samples", [label for _, label in samples]


def features_of(dataset: Any) -> Mapping[str, Any] | None:
    """Column → feature of a data set of Hugging Face; None for other data sets."""
    features = getattr(dataset, "features", None)
    return features if isinstance(features, Mapping) and hasattr(dataset, "with_format") else None


def class_names_of(dataset: Any) -> list[str] | None:
    """Names of the listed labels 0, 1, …, as torchvision's data sets keep them in ``classes``; None without such names.

    Args:
        dataset: A data set, possibly a `Subset`, or a `ConcatDataset` whose parts have the same names.
    """
    if isinstance(dataset, Subset):
        return class_names_of(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        first, *others = (class_names_of(part) for part in dataset.datasets)
        return first if all(each == first for each in others) else None
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    labels = labels_of(dataset)
    is_named = labels is not None and bool((labels < len(names)).all()) and len(set(names)) == len(names)
    return list(names) if is_named else None


def labels_of(dataset: Any) -> Tensor | None:
    """All labels of a data set, if it lists them as integers; no sample is read.

    Args:
        dataset: As for `listings_of`.

    Returns:
        int64, shape ``(N,)``, or None.
    """
    return next((labels for _, column in listings_of(dataset) if (labels := _integers(column)) is not None), None)


def names_of(dataset: Any) -> list[str] | None:
    """A name for each sample of a data set, if it lists them; no sample is read.

    Args:
        dataset: A data set, possibly a `Subset`, with ``names``, or one of torchvision's that list their files.

    Returns:
        N names: of files the path below the data set's root, with ``/`` between folders; None without names.
    """
    if isinstance(dataset, Subset):
        whole = names_of(dataset.dataset)
        return None if whole is None else [whole[n] for n in dataset.indices]
    own = getattr(dataset, "names", None)
    names: Any = own() if callable(own) else own
    if names is None and (files := _torchvision_files(dataset)) is not None:
        root = Path(getattr(dataset, "root", ""))
        names = relative_names([Path(path) for path in files], root).decode().split("\0")[1:]
    if not isinstance(names, list | tuple) or len(names) != len(dataset):
        return None
    return list(names) if all(isinstance(name, str) for name in names) else None


def _torchvision_files(dataset: Any) -> list[str | Path] | None:
    """Paths of the data sets that list them, alone or in pairs with a label."""
    for name in ("samples", "_samples", "_image_files", "_images"):
        files = getattr(dataset, name, None)
        if isinstance(files, list) and files:
            paths = [each[0] if isinstance(each, tuple) else each for each in files]
            if all(isinstance(path, str | Path) for path in paths):
                return paths
    return None


def digests_of(dataset: Any, indices: Sequence[int]) -> NDArray[np.uint8] | None:
    """Digests of the content of some samples of a data set, if it keeps or lists it; no sample is read.

    Args:
        dataset: A data set, possibly a `Subset` or `TensorDataset`, with a method ``sample_digests(indices)``, or one of
            torchvision's that keep all pixels in ``data`` or list their files.
        indices: Positions, shape ``(n,)``.

    Returns:
        Shape ``(n, 16)``, zero for a file that cannot be read; None if the data set has none of these.
    """
    if isinstance(dataset, Subset):
        return digests_of(dataset.dataset, [dataset.indices[n] for n in indices])
    own = getattr(dataset, "sample_digests", None)
    if callable(own):
        digests: NDArray[np.uint8] | None = own(indices)
        return digests
    rows = dataset.tensors[0] if isinstance(dataset, TensorDataset) else getattr(dataset, "data", None)
    known = isinstance(dataset, TensorDataset | VisionDataset)
    if known and isinstance(rows, np.ndarray | Tensor) and len(rows) == len(dataset):
        return row_digests(rows if len(indices) == len(rows) else rows[list(indices)])
    files = _torchvision_files(dataset) if known else None
    if files is None or len(files) != len(dataset):
        return None
    return file_digests([files[n] for n in indices], getattr(dataset, "root", ""))


def fingerprint_parts_of(dataset: Any) -> list[bytes] | None:
    """Bytes that identify the samples, from the method ``fingerprint_parts()`` of a data set; None without the method."""
    own = getattr(dataset, "fingerprint_parts", None)
    return own() if callable(own) else None


def _integers(labels: Any) -> Tensor | None:
    """Labels as int64 ``(N,)``, or None if they are not numbers, but for example names or boxes."""
    if isinstance(labels, Sequence) and all(isinstance(label, int | float | np.number | Tensor) for label in labels):
        labels = torch.tensor([to_label(label) for label in labels])
    elif isinstance(labels, np.ndarray) and labels.dtype.kind in "iuf":
        labels = torch.from_numpy(labels)
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        return None
    whole = labels.to(torch.int64)
    if bool((labels != whole).any()):
        raise DataError(f"Expected every label to be an integer, but got {labels[labels != whole][0].item():.6g}.")
    return whole.clamp(min=NO_LABEL)
