"""SupervisedModule: the user's labels as classes, a baseline to compare DIET with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from diet_lightning.callbacks.split_accuracy import ClassifierAccuracy
from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.training.module import DIETModule


class SupervisedModule(DIETModule):
    """A supervised run of the same backbone, data, augmentation and budget, a baseline to compare DIET with.

    It needs a label for every training sample, and also logs the accuracy of its classifier, ``val/supervised_top1``. The
    default `label_smoothing` of 0.8 is DIET's; 0.1 is usual for supervised training. The head is ``"dense"``, since the
    classes are few.

    Args:
        backbone: As for `DIETModule`.
        num_classes: Number of classes; None reads it from the data module.
        **settings: As for `DIETModule`.

    Raises:
        ConfigurationError: For an argument outside its range.

    Example:
        >>> module = SupervisedModule("resnet8", num_classes=10, input_shape=[1, 8, 8])
        >>> module.head.weight.shape
        torch.Size([10, 128])
    """

    target = "label"
    rows_argument = "num_classes"
    class_noun = "classes"

    def __init__(self, backbone: str | nn.Module = "resnet18", num_classes: int | None = None, **settings: Any) -> None:
        super().__init__(backbone, **settings)
        if self._head_config.kind != "dense":
            raise ConfigurationError(
                f"Expected argument `head.kind` to be 'dense' for SupervisedModule, but got {self._head_config.kind!r}: classes "
                "are few, so their rows need no other."
            )
        self._labels_known = False  # whether `setup` has seen them all

    def class_of(self, batch: DatumBatch) -> Tensor:
        """The class of each sample of a batch, int64 ``(B,)``: its label."""
        return batch.label

    def check_classes(self, count: int | None) -> None:
        """Raises `ConfigurationError` if the number of the user's classes is None, not known, or less than 2."""
        if count is None:
            raise ConfigurationError(
                "SupervisedModule trains on the user's labels, but the training data list none: add labels, set `num_classes` "
                "if samples carry them, or train with DIETModule."
            )
        if count < 2:
            raise ConfigurationError(
                f"SupervisedModule needs at least 2 classes, but there is {count}: give labels of at least 2 classes, or train "
                "with DIETModule."
            )

    def setup(self, stage: str) -> None:
        """Also checks the labels of the training samples, if the data module lists them, see `check_labels`."""
        super().setup(stage)
        if self._is_fitting:
            labels = getattr(self._data, "train_labels", None)
            self._labels_known = labels is not None
            if labels is not None:
                check_labels(labels, torch.arange(len(labels)), self.head.num_samples)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Adds `ClassifierAccuracy`, which measures the classifier."""
        return [ClassifierAccuracy()]

    def on_train_batch_start(self, batch: DatumBatch, batch_idx: int) -> None:
        """Also checks the labels of a batch that `setup` could not know."""
        if not self._labels_known:
            check_labels(batch.label, batch.index, self.head.num_samples)
        super().on_train_batch_start(batch, batch_idx)


def check_labels(label: Tensor, index: Tensor, num_classes: int) -> None:
    """Raises `DataError` for labels ``(B,)`` outside 0 … num_classes-1, naming the sample of the lowest index, also ``(B,)``."""
    wrong = (label < 0) | (label >= num_classes)
    if not wrong.any():
        return
    first = int(index[wrong].min())
    value = int(label[index == first][0])
    if value < 0:
        raise DataError(
            f"SupervisedModule needs a label for every training sample, but sample {first} has none ({value}): label it, leave "
            "it out, or train with DIETModule."
        )
    raise DataError(
        f"Expected labels in 0 … {num_classes - 1}, but training sample {first} has {value}: set `num_classes` to the number of "
        "classes, or correct the label."
    )
