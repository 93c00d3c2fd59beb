"""What identifies samples and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset

from diet_lightning.data.images import ImageDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.metadata import labels_of
from diet_lightning.transforms.convert import tensor_bytes

PROBES = 16  # samples of a foreign data set that identify it


def fingerprint(dataset: Dataset[Any]) -> str:
    """Identifies the samples of a data set and their order, so that a resumed run keeps its classes.

    A data set may say it itself by a method ``fingerprint_parts()`` that returns bytes. Of any other, up to 16 evenly
    spaced samples are read twice; if all come out equal they count by their values, else (random transforms) by their
    shape.

    Args:
        dataset: A map-style data set.

    Returns:
        32 hexadecimal digits.
    """
    own = getattr(dataset, "fingerprint_parts", None)
    parts: list[bytes] | None = own() if callable(own) else None
    digest = hashlib.blake2b(digest_size=16)
    for part in _probed_parts(dataset) if parts is None else parts:
        digest.update(part)
    return digest.hexdigest()


def _probed_parts(dataset: Dataset[Any]) -> Iterator[bytes]:
    indexed = IndexedDataset(dataset)
    count = len(indexed)
    yield str(count).encode()
    indices = sorted({round(i * (count - 1) / (PROBES - 1)) for i in range(PROBES)})
    reads = [(indexed[index].input, indexed[index].input) for index in indices]
    # one agreement may be chance, as of a random flip
    fixed = all(tensor_bytes(first) == tensor_bytes(second) for first, second in reads)
    for index, (first, _) in zip(indices, reads, strict=True):
        yield f"{index} {tuple(first.shape)} {first.dtype}".encode()
        if fixed:
            yield tensor_bytes(first)


def content_key(dataset: Dataset[Any], options: str = "") -> str:
    """Identifies samples, their order and labels; of files also the time of the last change.

    Args:
        dataset: A data set.
        options: What else the key is to tell apart.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(f"{fingerprint(dataset)}{options}".encode(), digest_size=16)
    if isinstance(dataset, ImageDataset):
        for part in dataset.change_times():
            digest.update(part.to_bytes(8, "little"))
    if (labels := labels_of(dataset)) is not None:
        digest.update(tensor_bytes(labels))
    return digest.hexdigest()
