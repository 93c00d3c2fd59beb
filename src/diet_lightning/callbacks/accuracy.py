"""Accuracy on the user's labels over an epoch of all ranks, for callbacks that classify embeddings."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import ConfigurationError


class LabelAccuracy:
    """Top-1, and top-5 where there are more than five classes; samples without a label do not count.

    Args:
        name: Prefix of the logged metrics, such as ``"probe/val"``.
        num_classes: Number of classes.
        device: Where logits come.
    """

    def __init__(self, name: str, num_classes: int, device: torch.device) -> None:
        self.name = name
        self._metrics: dict[str, Metric] = {}
        for top_k in (1, 5) if num_classes > 5 else (1,):
            metric = MulticlassAccuracy(
                num_classes, top_k=top_k, average="micro", ignore_index=NO_LABEL, validate_args=False
            )
            self._metrics[f"top{top_k}"] = metric.to(device)

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Counts a batch: logits ``(B, classes)`` and labels ``(B,)``."""
        for metric in self._metrics.values():
            metric.update(logits, label)

    def log(self, pl_module: LightningModule, required: bool) -> None:
        """Logs what was counted on all ranks.

        Raises:
            ConfigurationError: If that is no sample at all, and one is `required`.
        """
        for top, metric in self._metrics.items():
            state: Any = metric
            total = pl_module.trainer.strategy.reduce(state.tp.sum() + state.fn.sum(), reduce_op="sum")
            if total == 0 and required:
                callback, _, split = self.name.partition("/")
                raise ConfigurationError(
                    f"Probe {callback!r} is asked for, but no sample of the {split} split has a label: add labels, "
                    "leave the split out, or remove the probe."
                )
            # the metric has counted all ranks; averaging equal values only tells Lightning that it is synchronised
            pl_module.log(f"{self.name}_{top}", metric.compute(), prog_bar=top == "top1", sync_dist=True)


def originals(batch: DatumBatch, trainer: Trainer) -> Tensor:
    """Labels of a batch of a split in order, -1 for what a distributed sampler repeats.

    It repeats the first samples at the end; an original sits on the rank of its index.
    """
    return torch.where(batch.index % trainer.world_size == trainer.global_rank, batch.label, NO_LABEL)


def check_labels(label: Tensor, num_classes: int | None, name: str) -> None:
    """Refuses a label beyond the classes, on the CPU: on an accelerator the comparison would make every step wait.

    Raises:
        ConfigurationError: If there is one.
    """
    if label.device.type == "cpu" and num_classes and bool((label >= num_classes).any()):
        raise ConfigurationError(
            f"{name} has {num_classes} classes, but a sample has label {int(label.max())}: set `num_classes` to at least "
            f"{int(label.max()) + 1}."
        )


def find_num_classes(trainer: Trainer, name: str, enabled: bool | None) -> int | None:
    """The data's number of classes.

    Args:
        trainer: With its data module.
        name: Of the callback that asks.
        enabled: None makes do without labels, with a message.

    Returns:
        The number, or None without labels.

    Raises:
        ConfigurationError: If there are no labels and `enabled` is True.
    """
    found: int | None = getattr(getattr(trainer, "datamodule", None), "num_classes", None)
    if found is None and enabled is None:
        rank_zero_info(f"The training data have no labels: {name[0].lower()}{name[1:]} is off.")
    elif found is None:
        raise ConfigurationError(
            f"{name} is asked for, but the training data have no labels: add labels, pass `num_classes` if samples carry "
            "them, or remove it."
        )
    return found
