"""Data sets that also return the index n (DIET, Algorithm 2), and what identifies their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import DataError, DIETError

INPUT_KEYS = ("image", "img", "input", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "fine_label")
PROBES = 16  # samples of a foreign data set that identify it


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples held in memory, served one at a time or by whole batches.

    Args:
        inputs: Shape ``(N, ...)``; images are uint8 ``(N, C, H, W)``.
        labels: Shape ``(N,)``, int64, or None where there are none.
    """

    def __init__(self, inputs: Tensor, labels: Tensor | None = None) -> None:
        if labels is None:
            labels = torch.full((len(inputs),), NO_LABEL)
        if len(labels) != len(inputs):
            raise DataError(f"Expected one label per sample, but got {len(labels)} labels for {len(inputs)} samples.")
        self.inputs = inputs
        self.labels = labels.to(torch.int64)

    def __len__(self) -> int:
        """N."""
        return len(self.inputs)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, Tensor]:
        """The sample at an index, or the batch at several."""
        return self.inputs[index], self.labels[index]

    def fingerprint_parts(self) -> list[bytes]:
        """Shape and values of the inputs, in order."""
        return [repr(tuple(self.inputs.shape)).encode(), tensor_bytes(self.inputs)]


class IndexedDataset(Dataset[DatumBatch]):
    """Any map-style data set, with the index of each sample beside it.

    The index is the position in *this* data set: wrap last, after `Subset` or `ConcatDataset`, and it is exactly
    0 … N-1. Samples may be an input, a pair ``(input, label, ...)`` or a mapping with the keys of a Hugging Face set;
    inputs may be tensors, arrays or PIL images.

    Args:
        dataset: A data set with ``__len__`` and ``__getitem__``. It may offer ``names``, a name for each sample as a list of
            strings or a method that gives it, which `EmbeddingWriter` writes beside the embeddings.

    Raises:
        DataError: If the data set has no length or is empty.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset: Any = dataset
        self._length = self._measure()
        if self._length == 0:
            raise DataError(f"Expected data set {type(dataset).__name__} to hold samples, but it is empty.")

    def _measure(self) -> int:
        try:
            return len(self.dataset)
        except TypeError as error:
            raise DataError(
                f"Data set {type(self.dataset).__name__} has no length: DIET gives every sample a class of its own, so "
                "it needs a map-style data set with `__len__` and `__getitem__`."
            ) from error

    def __len__(self) -> int:
        """N, as it was when the data set was wrapped."""
        return self._length

    def __getitem__(self, index: int) -> DatumBatch:
        """One sample; index and label are scalars."""
        batch = self.__getitems__([index])
        return DatumBatch(*(field[0] for field in batch))

    def __getitems__(self, indices: Sequence[int]) -> DatumBatch:
        """A whole batch, read at once where the data set is in memory.

        Raises:
            DataError: For an index outside 0 … N-1, a changed length, or a sample that cannot be read or stacked.
        """
        if (length := self._measure()) != self._length:
            raise DataError(
                f"The length of data set {type(self.dataset).__name__} changed from {self._length} to {length}: every "
                "sample keeps one row of the head, so the data must not change during a run."
            )
        rows = torch.as_tensor(indices, dtype=torch.int64)
        if len(outside := rows[(rows < 0) | (rows >= self._length)]):
            raise DataError(f"Expected an index in 0 … {self._length - 1}, but got {int(outside[0])}.")
        if isinstance(self.dataset, ArrayDataset):
            return DatumBatch(self.dataset.inputs[rows], rows, self.dataset.labels[rows])
        samples = [self._read(n) for n in indices]
        for n, (sample, _) in zip(indices, samples, strict=True):
            if sample.shape != samples[0][0].shape:
                raise DataError(
                    f"Sample {n} has shape {tuple(sample.shape)}, but sample {indices[0]} has "
                    f"{tuple(samples[0][0].shape)}: a batch needs one shape; resize in the data set, or set "
                    "`image_size` where a source is used."
                )
        return DatumBatch(
            torch.stack([sample for sample, _ in samples]), rows, torch.tensor([label for _, label in samples])
        )

    def _read(self, index: int) -> tuple[Tensor, int]:
        try:
            sample = self.dataset[index]
            if isinstance(sample, Mapping):
                sample = _pair_of_mapping(sample)
            elif not isinstance(sample, tuple | list):
                sample = (sample, None)
            label = sample[1] if len(sample) > 1 else None
            return to_tensor(sample[0]), to_label(label)
        except DIETError:
            raise
        except Exception as error:  # a foreign data set may raise anything
            raise DataError(f"Sample {index} of {type(self.dataset).__name__} cannot be read: {error}") from error


def _pair_of_mapping(sample: Mapping[str, Any]) -> tuple[Any, Any]:
    for key in INPUT_KEYS:
        if key in sample:
            return sample[key], next((sample[name] for name in LABEL_KEYS if name in sample), None)
    raise KeyError(f"none of the keys {list(INPUT_KEYS)} is among {sorted(sample)}")


def to_tensor(value: Any) -> Tensor:
    """A tensor as it is, an array as a tensor, a PIL image as uint8 ``(3, H, W)``.

    Raises:
        TypeError: For anything else.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Image.Image):
        return torch.from_numpy(np.array(to_rgb(value))).permute(2, 0, 1)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise TypeError(f"expected a tensor, an array or a PIL image, but got {type(value).__name__}")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: 16 bits are scaled to 8, where Pillow would clip them, and transparency is dropped."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"an image of mode {image.mode} has no range that is known; convert it to 8 or 16 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def to_label(value: Any) -> int:
    """A label as an integer, -1 for None.

    Raises:
        ValueError: If it is no single integer.
    """
    if value is None:
        return NO_LABEL
    number = value.item() if hasattr(value, "item") else value
    if int(number) != number:
        raise ValueError(f"expected the label to be an integer, but got {number:.6g}")
    return int(number)


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


def labels_of(dataset: Any) -> Tensor | None:
    """All labels of a data set, if it keeps them in one place: no sample is read.

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
    """A name for each sample of a data set, if it keeps them: no sample is read.

    Args:
        dataset: A data set, possibly a `Subset`, with ``names``, or one of torchvision's that list their files.

    Returns:
        N names: of files the path below the data set's root, with ``/`` between folders. None where there are none.
    """
    if isinstance(dataset, Subset):
        whole = names_of(dataset.dataset)
        return None if whole is None else [whole[n] for n in dataset.indices]
    own = getattr(dataset, "names", None)
    names: Any = own() if callable(own) else own
    names = _torchvision_files(dataset) if names is None else names
    if not isinstance(names, list | tuple) or len(names) != len(dataset):
        return None
    return list(names) if all(isinstance(name, str) for name in names) else None


def _torchvision_files(dataset: Any) -> list[str] | None:
    """Files of the sets that list them, alone or with a label each."""
    for name in ("samples", "_samples", "_image_files", "_images"):
        files = getattr(dataset, name, None)
        if isinstance(files, list) and files:
            paths = [each[0] if isinstance(each, tuple) else each for each in files]
            if all(isinstance(path, str | Path) for path in paths):
                return [relative_name(Path(path), Path(getattr(dataset, "root", ""))) for path in paths]
    return None


def relative_name(path: Path, root: Path) -> str:
    """The path below a folder with ``/`` between folders, or the whole where it lies elsewhere; bytes that are no text escaped."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    return relative.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _integers(labels: Any, count: int) -> Tensor | None:
    """Labels as int64 ``(count,)``, or None where they are something else, such as names or boxes."""
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


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor of any dtype; NumPy does not know them all."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
