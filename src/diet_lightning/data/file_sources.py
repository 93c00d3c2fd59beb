"""``folder:PATH`` and ``npz:FILE``: the user's own images and arrays."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diet_lightning.data.dataset import ArrayDataset
from diet_lightning.data.images import ImageFileDataset, ImageFiles
from diet_lightning.data.labels import encode_labels
from diet_lightning.data.layouts import SPLIT_NAMES, LabelledFile, split_files
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.errors import DataError


def folder_source(path: str, options: SourceOptions) -> Source:
    """A folder of images: split folders, class folders, flat and unlabelled, or as a known archive unpacks."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(
            f"Source folder {path!r} does not exist or is not a folder: give the path of a folder of images."
        )
    trees = split_files(root)
    classes = sorted({label for tree in trees.values() for _, label in tree if label is not None})
    number = {name: n for n, name in enumerate(classes)}

    def files(entries: list[LabelledFile]) -> ImageFileDataset:
        labels = [-1 if label is None else number[label] for _, label in entries]
        return ImageFileDataset(ImageFiles([file for file, _ in entries], labels, root), options.image_size)

    train = trees["train"]
    measured = "val" in trees or any(label is not None for _, label in trees.get("test", []))
    if not measured and classes and options.holdout > 0.0:
        order = np.random.default_rng(options.seed).permutation(len(train))
        count = min(round(options.holdout * len(train)), max(0, len(train) - 2))  # DIET needs at least two samples
        held = set(order[:count].tolist())
        trees["val"] = [entry for n, entry in enumerate(train) if n in held]
        trees["train"] = [entry for n, entry in enumerate(train) if n not in held]
    splits = {part: files(entries) for part, entries in trees.items() if entries}
    return Source(splits["train"], splits.get("val"), splits.get("test"), classes or None)


def npz_source(path: str, options: SourceOptions) -> Source:
    """Arrays under MedMNIST's keys: ``train_images``, ``train_labels``, and the same for val and test."""
    try:
        with Path(path).expanduser().open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        # a single array is not a context manager: TypeError, or AttributeError on Python 3.10
        raise DataError(f"Source file {path!r} cannot be read as an .npz of plain arrays: {error}.") from error
    if "train_images" not in arrays:
        raise DataError(
            f"Source file {path!r} has the keys {sorted(arrays)}, but no 'train_images': expected MedMNIST's key names, "
            "train_images, train_labels, val_images, …"
        )
    splits = {}
    encoded = encode_labels({part: arrays.get(f"{part}_labels") for part in SPLIT_NAMES})
    for part in SPLIT_NAMES:
        if f"{part}_images" in arrays:
            inputs = arrays[f"{part}_images"]
            if inputs.dtype.kind not in "iufb" or inputs.ndim < 2:
                raise DataError(
                    f"Expected '{part}_images' of {path!r} to hold numbers, one row or image per sample, but got "
                    f"{inputs.dtype} of shape {inputs.shape}."
                )
            splits[part] = ArrayDataset(_array_to_tensor(inputs), encoded.labels[part])
    return Source(splits["train"], splits.get("val"), splits.get("test"), encoded.class_names, notes=encoded.notes)


def _array_to_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """uint8 ``(N, H, W)`` gets a channel; a last axis of 1 or 3 channels comes second; anything else stays."""
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
