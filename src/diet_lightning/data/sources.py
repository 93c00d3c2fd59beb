"""A name in, train / val / test data sets out."""

from __future__ import annotations

import glob
import inspect
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from torch import Tensor
from torch.utils.data import Dataset

from diet_lightning.data.adapters import INPUT_KEYS, LABEL_KEYS
from diet_lightning.data.dataset import ArrayDataset, SampleDataset
from diet_lightning.data.images import ImageDataset, ImageFileDataset, ImageFiles
from diet_lightning.data.layouts import SPLIT_NAMES, LabelledFile, split_files
from diet_lightning.data.metadata import to_label
from diet_lightning.errors import ConfigurationError, DataError

# (train, val, test) of the torchvision sets whose `split` is not just train and test
TORCHVISION_SPLITS: dict[str, tuple[str, str | None, str | None]] = {
    "CLEVRClassification": ("train", "val", None),
    "Country211": ("train", "valid", "test"),
    "DTD": ("train", "val", "test"),
    "FGVCAircraft": ("trainval", None, "test"),
    "Flowers102": ("train", "val", "test"),
    "ImageNet": ("train", "val", None),
    "Imagenette": ("train", "val", None),
    "OxfordIIITPet": ("trainval", None, "test"),
    "PCAM": ("train", "val", "test"),
    "RenderedSST2": ("train", "val", "test"),
}
PIXELS_IN_MEMORY = tuple(
    getattr(torchvision.datasets, name) for name in ("CIFAR10", "MNIST", "SEMEION", "STL10", "SVHN", "USPS")
)
KINDS = "'digits', 'torchvision:NAME', 'folder:PATH', 'npz:FILE', 'hf:NAME' or 'hf:parquet:PATH'"


@dataclass(frozen=True)
class Source:
    """The splits behind a name.

    Attributes:
        train: What DIET trains on; its length is N.
        val: What online probes are measured on, or None.
        test: What is left for the end, or None.
        class_names: Names of the labels, or None.
        augmentation: The source's own arguments of `BatchAugmentation`, in place of the paper's.
    """

    train: SampleDataset
    val: SampleDataset | None = None
    test: SampleDataset | None = None
    class_names: Sequence[str] | None = None
    augmentation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read (see `DIETDataModule`)."""

    root: str | None = None
    image_size: int | None = None
    holdout: float = 0.1
    download: bool = False
    seed: int = 0


def load_source(name: str, options: SourceOptions) -> Source:
    """Opens a source.

    Args:
        name: One of the kinds that `DIETDataModule` lists.
        options: How to read it.

    Returns:
        Its splits.

    Raises:
        ConfigurationError: For an unknown name.
        DataError: If the data are missing or not laid out as the kind asks.
    """
    kind, _, rest = name.partition(":")
    loaders = {"digits": _digits, "torchvision": _torchvision, "folder": _folder, "npz": _npz, "hf": _hugging_face}
    if kind not in loaders or (kind == "digits") != (not rest):
        raise ConfigurationError(f"Unknown source {name!r}: expected {KINDS}.")
    return loaders[kind](rest, options)


def _digits(_: str, options: SourceOptions) -> Source:
    """Scikit-learn's 1,797 handwritten digits, 8×8 gray pixels, a quarter of each class held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    # one fixed split, so that figures compare whatever the seed
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    return Source(
        ArrayDataset(images[train], labels[train]),
        test=ArrayDataset(images[test], labels[test]),
        class_names=[str(digit) for digit in range(10)],
        # a mirrored 2 is no digit, and 8 pixels bear no hard crop
        augmentation={"crop_scale": (0.5, 1.0), "flip": 0.0},
    )


def _torchvision(name: str, options: SourceOptions) -> Source:
    """A torchvision classification set with a train and a test (or val) split."""
    factory = getattr(torchvision.datasets, name, None)
    parameters = inspect.signature(factory).parameters if inspect.isclass(factory) else {}
    if not {"train", "split"} & set(parameters) or "root" not in parameters:
        raise ConfigurationError(
            f"Unknown source 'torchvision:{name}': expected a torchvision classification set with a train and a test "
            "split, such as CIFAR10 or Food101; wrap any other in DIETDataModule.from_datasets."
        )
    root = options.root or "data"

    def split(part: str | None) -> ImageDataset | None:
        if part is None:
            return None
        arguments: dict[str, Any] = {"root": root}
        if name == "EMNIST":
            arguments |= {"split": "balanced", "train": part == "train"}
        else:
            arguments |= {"train": part == "train"} if "train" in parameters else {"split": part}
        # some pass it on among their keywords
        if any("download" in inspect.signature(base.__init__).parameters for base in factory.__mro__[:-1]):  # type: ignore[union-attr]
            arguments["download"] = options.download
        try:
            items = factory(**arguments)  # type: ignore[misc]
        except Exception as error:  # readers of .mat, .json and .txt files raise whatever they like
            raise DataError(
                f"The {part} split of torchvision's {name} cannot be opened in root={root!r}: {error}; put the data "
                "there, or set `download` to true."
            ) from error
        return ImageDataset(items, options.image_size, pixels_in_memory=isinstance(items, PIXELS_IN_MEMORY))

    train, val, test = (split(part) for part in TORCHVISION_SPLITS.get(name, ("train", None, "test")))
    if train is None:
        raise DataError(f"torchvision's {name} has no train split.")
    return Source(train, val, test, getattr(train.items, "classes", None))


def _folder(path: str, options: SourceOptions) -> Source:
    """A folder of images: split folders, class folders, flat and unlabelled, or as a known archive unpacks."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"Source folder {path!r} does not exist or is no folder: give the path of a folder of images.")
    trees = split_files(root)
    classes = sorted({label for tree in trees.values() for _, label in tree if label is not None})
    number = {name: n for n, name in enumerate(classes)}

    def files(entries: list[LabelledFile]) -> ImageFileDataset:
        labels = [-1 if label is None else number[label] for _, label in entries]
        return ImageFileDataset(ImageFiles([file for file, _ in entries], labels, root), options.image_size)

    train = trees["train"]
    if len(trees) == 1 and classes and options.holdout > 0.0:
        order = np.random.default_rng(options.seed).permutation(len(train))
        count = min(round(options.holdout * len(train)), max(0, len(train) - 2))  # DIET needs two to tell apart
        held = set(order[:count].tolist())
        trees["val"] = [entry for n, entry in enumerate(train) if n in held]
        trees["train"] = [entry for n, entry in enumerate(train) if n not in held]
    splits = {part: files(entries) for part, entries in trees.items() if entries}
    return Source(splits["train"], splits.get("val"), splits.get("test"), classes or None)


def _npz(path: str, options: SourceOptions) -> Source:
    """Arrays under MedMNIST's keys: ``train_images``, ``train_labels``, and the same for val and test."""
    try:
        with Path(path).expanduser().open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        # a lone array is no context manager: TypeError, and AttributeError on Python 3.10
        raise DataError(f"Source file {path!r} cannot be read as an .npz of plain arrays: {error}.") from error
    if "train_images" not in arrays:
        raise DataError(
            f"Source file {path!r} has the keys {sorted(arrays)}, but no 'train_images': expected MedMNIST's key names, "
            "train_images, train_labels, val_images, …"
        )
    splits = {}
    for part in SPLIT_NAMES:
        if f"{part}_images" in arrays:
            inputs, labels = arrays[f"{part}_images"], arrays.get(f"{part}_labels")
            if inputs.dtype.kind not in "iufb" or inputs.ndim < 2:
                raise DataError(
                    f"Expected '{part}_images' of {path!r} to hold numbers, one row or image per sample, but got "
                    f"{inputs.dtype} of shape {inputs.shape}."
                )
            if labels is not None and (labels.ndim == 0 or labels.size != len(labels) or labels.dtype.kind not in "iu"):
                raise DataError(
                    f"Expected '{part}_labels' of {path!r} to hold one integer per sample, but got {labels.dtype} of shape "
                    f"{labels.shape}: leave the key out to train without labels."
                )
            splits[part] = ArrayDataset(
                _array_to_tensor(inputs),
                None if labels is None else torch.from_numpy(labels.reshape(-1).astype(np.int64)),
            )
    return Source(splits["train"], splits.get("val"), splits.get("test"))


def _array_to_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """uint8 ``(N, H, W)`` gets a channel; a last axis of 1 or 3 channels comes second; anything else stays."""
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))


class _HuggingFaceItems(Dataset[tuple[Any, int | None]]):
    """A split of a Hugging Face data set as ``(image, label)``."""

    def __init__(self, split: Any, image: str, label: str | None) -> None:
        self.split, self.image, self.label = split, image, label

    @property
    def labels(self) -> Sequence[int] | None:
        """The label column."""
        return None if self.label is None else [to_label(value) for value in self.split[self.label]]

    @property
    def names(self) -> list[str | None]:
        """Names of the files that the images came from, None for those without."""
        # the column as it lies on the disk, since a row would be read with its image
        return [name for part in self.split.data.column(self.image).chunks for name in part.field("path").to_pylist()]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        row = self.split[int(index)]
        return row[self.image], None if self.label is None else row[self.label]


def _hugging_face(name: str, options: SourceOptions) -> Source:
    """A Hugging Face data set of images, on the hub or as parquet files."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigurationError(
            f"Source 'hf:{name}' needs the datasets package: pip install 'diet-lightning[hf]'."
        ) from error
    arguments: dict[str, Any] = {"path": name}
    if name.startswith("parquet:"):
        arguments = {"path": "parquet", "data_files": _parquet_files(name.removeprefix("parquet:"))}
    try:
        splits = datasets.load_dataset(**arguments, cache_dir=options.root)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"Source 'hf:{name}' cannot be loaded: {str(error).splitlines()[0]}.") from error

    def split(part: str) -> ImageDataset | None:
        found = next((splits[alias] for alias in SPLIT_NAMES[part] if alias in splits), None)
        if found is None:
            return None
        image = next((key for key, kind in found.features.items() if isinstance(kind, datasets.Image)), None)
        image = image or next((key for key in INPUT_KEYS if key in found.features), None)
        if image is None:
            raise DataError(f"Source 'hf:{name}' has the columns {sorted(found.features)}, but none of images.")
        if not isinstance(found.features[image], datasets.Image):
            try:
                found = found.cast_column(image, datasets.Image())
            except (ValueError, TypeError, NotImplementedError) as error:
                raise DataError(f"Column {image!r} of source 'hf:{name}' holds no images: {error}.") from error
        label = next((key for key, kind in found.features.items() if isinstance(kind, datasets.ClassLabel)), None)
        label = label or next((key for key in LABEL_KEYS if key in found.features), None)
        return ImageDataset(_HuggingFaceItems(found, image, label), options.image_size)

    train = split("train")
    if train is None:
        raise DataError(f"Source 'hf:{name}' has the splits {sorted(splits)}, but none called 'train'.")
    names = getattr(train.items.split.features.get(train.items.label), "names", None)
    return Source(train, split("val"), split("test"), names)


def _parquet_files(path: str) -> dict[str, list[str]]:
    """The parquet files of a folder by split, judged by their names; a single file is all for training."""
    root = Path(path).expanduser()
    if root.is_file():
        return {"train": [glob.escape(str(root))]}
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    parts: dict[str, list[str]] = {}
    for file in files:
        for part, names in SPLIT_NAMES.items():
            if (
                file.relative_to(root)
                .as_posix()
                .lower()
                .startswith(tuple(f"{prefix}{name}" for name in names for prefix in ("", "data/")))
            ):
                parts.setdefault("validation" if part == "val" else part, []).append(glob.escape(str(file)))
    if "train" not in parts:
        raise DataError(
            f"Source 'hf:parquet:{path}' has no training file: expected a .parquet file, or a folder with files named "
            "train*.parquet, and validation*.parquet or test*.parquet if there are any."
        )
    return parts
