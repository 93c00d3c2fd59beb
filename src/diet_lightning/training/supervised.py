"""What a run's classes are: the samples' indices (DIET), or the user's labels, to hold DIET against."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diet_lightning.errors import ConfigurationError, DataError

Target = Literal["index", "label"]


def check_class_count(num_classes: int | None) -> None:
    """Refuses a supervised run whose classes are not known, or are too few.

    Args:
        num_classes: Number of the user's classes, None where it is not known.

    Raises:
        ConfigurationError: Naming the cure.
    """
    if num_classes is None:
        raise ConfigurationError(
            "target='label' trains on the user's labels, but the training data list none: add labels, set `num_classes` if "
            "samples carry them, or train with target='index'."
        )
    if num_classes < 2:
        raise ConfigurationError(
            f"target='label' tells classes apart, but there is {num_classes}: give labels of at least 2 classes, or train with "
            "target='index'."
        )


def check_labels(label: Tensor, index: Tensor, num_classes: int) -> None:
    """Refuses training samples that belong to no class.

    Args:
        label: Labels, shape ``(B,)``, -1 where there is none.
        index: Indices of the samples, shape ``(B,)``.
        num_classes: Number of classes.

    Raises:
        DataError: Naming the sample of the lowest index.
    """
    wrong = (label < 0) | (label >= num_classes)
    if not bool(wrong.any()):
        return
    first = int(index[wrong].min())
    value = int(label[index == first][0])
    if value < 0:
        raise DataError(
            f"target='label' needs a label for every training sample, but sample {first} has none ({value}): label it, leave "
            "it out, or train with target='index'."
        )
    raise DataError(
        f"Expected labels in 0 … {num_classes - 1}, but training sample {first} has {value}: set `num_classes` to the number of "
        "classes, or correct the label."
    )
