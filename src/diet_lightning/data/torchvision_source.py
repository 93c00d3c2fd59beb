"""``torchvision:NAME``: torchvision's classification data sets, downloaded if requested."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, MNIST, SEMEION, STL10, SVHN, USPS

from diet_lightning.data.adapters import MapDataset
from diet_lightning.data.carried_labels import resolve_labels
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.metadata import digests_of, names_of
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.source import Source, SourceOptions
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
PIXELS_IN_MEMORY = (CIFAR10, MNIST, SEMEION, STL10, SVHN, USPS)  # and what is derived of them


def torchvision_source(name: str, options: SourceOptions) -> Source:
    """A torchvision classification set with a train and a test (or val) split.

    Args:
        name: Name of the class in `torchvision.datasets`.
        options: Options of reading. With `download`, one process downloads missing data while others wait.

    Returns:
        The splits.

    Raises:
        ConfigurationError: If torchvision has no such set.
        DataError: If it cannot be opened.
    """
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
        # some data sets pass it on as a keyword
        if any("download" in inspect.signature(base.__init__).parameters for base in factory.__mro__[:-1]):  # type: ignore[union-attr]
            arguments["download"] = False
        try:
            items = _opened(factory, arguments, options.download and "download" in arguments)  # type: ignore[arg-type]
        except Exception as error:  # readers of .mat, .json and .txt files raise exceptions of any type
            raise DataError(
                f"The {part} split of torchvision's {name} cannot be opened in root={root!r}: {error}; put the data "
                "there, or set `download` to true."
            ) from error
        return ImageDataset(
            items, options.image_size, options.read, pixels_in_memory=isinstance(items, PIXELS_IN_MEMORY)
        )

    train, val, test = (split(part) for part in TORCHVISION_SPLITS.get(name, ("train", None, "test")))
    if train is None:
        raise DataError(f"torchvision's {name} has no train split.")
    return _with_classes({"train": train, "val": val, "test": test}, getattr(train.items, "classes", None))


class _Relabelled(Dataset[tuple[Any, int]]):
    """The images of a data set with other labels, int64, shape ``(N,)``."""

    def __init__(self, items: Any, labels: Tensor) -> None:
        self.items, self.labels = items, labels

    @property
    def names(self) -> list[str] | None:
        """Names of the image files."""
        return names_of(self.items)

    def sample_digests(self, indices: Sequence[int]) -> NDArray[np.uint8] | None:
        """Digests of the images, where the data set keeps or lists them."""
        return digests_of(self.items, indices)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.items[index][0], int(self.labels[index])


def _with_classes(given: Mapping[str, ImageDataset | None], class_names: Sequence[str] | None) -> Source:
    """The splits, with classes where a data set lists no labels and its samples carry targets of another kind."""
    images: dict[str, Any] = {split: part for split, part in given.items() if part is not None}
    if all(part.labels is not None for part in images.values()):
        return Source(**images, class_names=class_names)
    adapted: dict[str, Any] = {split: MapDataset(part.items) for split, part in images.items()}
    found = resolve_labels(Source(**adapted, class_names=class_names), ReadConfig())
    for split, part in images.items():
        labelled = getattr(found, split)
        if labelled is not adapted[split]:
            items = _Relabelled(part.items, labelled.labels)
            images[split] = ImageDataset(
                items, part.image_size, part.read_config, pixels_in_memory=part.pixels_in_memory
            )
    return Source(**images, class_names=found.class_names, notes=found.notes)


def _opened(factory: Callable[..., Any], arguments: dict[str, Any], download: bool) -> Any:
    """A split, downloaded first if it is missing and requested; one of several processes downloads it."""
    if not download:
        return factory(**arguments)
    with suppress(Exception):  # the error of the last attempt is raised
        return factory(**arguments)
    root = Path(arguments["root"]).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        with suppress(Exception):
            return factory(**arguments)
        return factory(**{**arguments, "download": True})
