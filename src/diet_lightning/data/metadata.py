"""Labels, names and digests that a data set of a user or a library keeps, by the attributes such data sets have.

No sample is read. Only this module reads such attributes; all other code uses `SampleDataset`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import VisionDataset

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.fingerprint import file_digests, row_digests
from diet_lightning.errors import DataError


def to_label(value: Any) -> int:
    """A label as an integer, -1 for None.

    Raises:
        ValueError: If it is not a single integer.
    """
    if value is None:
        return NO_LABEL
    number = value.item() if isinstance(value, Tensor | np.ndarray | np.generic) else value
    if int(number) != number:
        raise ValueError(f"expected the label to be an integer, but got {number:.6g}")
    return int(number)


def labels_of(dataset: Any) -> Tensor | None:
    """All labels of a data set, if it lists them; no sample is read.

    Args:
        dataset: A data set, possibly a `Subset` or `TensorDataset`, or one with ``targets`` or ``labels``.

    Returns:
        int64, shape ``(N,)``, or None.
    """
    if isinstance(dataset, Subset):
        labels = labels_of(dataset.dataset)
        return None if labels is None else labels[torch.as_tensor(list(dataset.indices))]
    if isinstance(dataset, TensorDataset):
        return _integers(dataset.tensors[1], len(dataset)) if len(dataset.tensors) > 1 else None
    for name in ("labels", "targets", "_labels"):  # the last is torchvision's in its newer sets
        labels = _integers(getattr(dataset, name, None), len(dataset))
        if labels is not None:
            return labels
    samples = getattr(dataset, "samples", getattr(dataset, "_samples", None))  # (path, label) of torchvision's folders
    if isinstance(samples, list) and all(isinstance(sample, tuple) and len(sample) == 2 for sample in samples):
        return _integers([label for _, label in samples], len(dataset))
    return None


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
        names = [relative_name(Path(path), root) for path in files]
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


def relative_name(path: str | Path, root: str | Path) -> str:
    """The path below a folder with ``/`` between folders, else the whole path; bytes outside the encoding are escaped."""
    whole, folder = os.fspath(path), os.path.join(root, "")
    return printable(whole.removeprefix(folder).replace(os.sep, "/"))


def printable(text: str) -> str:
    """A text with those bytes of a file's name escaped that are outside the encoding."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _integers(labels: Any, count: int) -> Tensor | None:
    """Labels as int64 ``(count,)``, or None if they are not numbers, but for example names or boxes."""
    if isinstance(labels, Sequence) and all(isinstance(label, int | float | np.number | Tensor) for label in labels):
        labels = torch.tensor([to_label(label) for label in labels])
    elif isinstance(labels, np.ndarray) and labels.dtype.kind in "iuf":
        labels = torch.from_numpy(labels)
    if not isinstance(labels, Tensor) or tuple(labels.shape) != (count,):
        return None
    whole = labels.to(torch.int64)
    if bool((labels != whole).any()):
        raise DataError(f"Expected every label to be an integer, but got {labels[labels != whole][0].item():.6g}.")
    return whole
