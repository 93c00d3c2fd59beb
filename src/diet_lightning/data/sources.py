"""A name in, train / val / test data sets out."""

from __future__ import annotations

import numpy as np
import torch

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.csv_source import csv_source
from diet_lightning.data.file_sources import folder_source, npz_source
from diet_lightning.data.hugging_face_source import hugging_face_source
from diet_lightning.data.path_hints import hint_for_path, near_kind
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.torchvision_source import torchvision_source
from diet_lightning.errors import ConfigurationError

KINDS = "'digits', 'torchvision:NAME', 'folder:PATH', 'csv:FILE', 'npz:FILE', 'hf:NAME' or 'hf:parquet:PATH'"


READ_BY = {"layout": ("folder",), "image_column": ("csv", "hf"), "label_column": ("csv", "hf")}


def load_source(name: str, options: SourceOptions) -> Source:
    """Opens a source.

    Args:
        name: One of the kinds that `DIETDataModule` lists.
        options: Options of reading.

    Returns:
        Its splits.

    Raises:
        ConfigurationError: For an unknown name, or an option of `ReadConfig` that the source does not use.
        DataError: If the data are missing or in another layout.
    """
    kind, _, rest = name.partition(":")
    loaders = {
        "digits": digits_source,
        "torchvision": torchvision_source,
        "folder": folder_source,
        "csv": csv_source,
        "npz": npz_source,
        "hf": hugging_face_source,
    }
    if kind not in loaders or (kind == "digits") != (not rest):
        raise ConfigurationError(
            hint_for_path(name) or f"Unknown source {name!r}: {near_kind(name, loaders)}expected {KINDS}."
        )
    for argument, kinds in READ_BY.items():
        value = getattr(options.read, argument)
        if value not in (None, "auto") and kind not in kinds:
            raise ConfigurationError(
                f"Expected argument `read.{argument}` to be left out for source {name!r}, but got {value!r}: only the sources "
                f"{' and '.join(f'{each}:' for each in kinds)} use it."
            )
    return loaders[kind](rest, options)


def needs_download(name: str, options: SourceOptions) -> bool:
    """Whether opening a source may download or convert its data first.

    Args:
        name: As for `load_source`.
        options: As for `load_source`.
    """
    kind = name.partition(":")[0]
    return kind == "hf" or (kind == "torchvision" and options.download)


def digits_source(_: str, options: SourceOptions) -> Source:
    """Scikit-learn's 1,797 handwritten digits, 8×8 gray pixels, a quarter of each class held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    # one fixed split, so that results compare across seeds
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    return Source(
        ArrayDataset(images[train], labels[train]),
        test=ArrayDataset(images[test], labels[test]),
        class_names=[str(digit) for digit in range(10)],
        # mirrored digits are not digits, and images of 8 pixels do not allow strong crops
        augmentation={"crop_scale": (0.5, 1.0), "flip": 0.0},
    )
