"""SplitAccuracy: the accuracy of a classifier on the embeddings, each sample counted once on any number of ranks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassStatScores

from diet_lightning.callbacks.split_callback import SplitCallback, originals
from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import ConfigurationError


class SplitAccuracy(SplitCallback):
    """Logs ``val/{name}_top1`` and ``test/{name}_top1`` on clean samples, and ``top5`` with more than five classes.

    Samples without a label (-1) are ignored. Subclasses give the logits.

    Args:
        name: Name of the metrics.
        owner: Name of the classifier in messages.
        enabled: None leaves out what has no labels; True raises an error then.
    """

    def __init__(self, name: str, owner: str, enabled: bool | None) -> None:
        self.name = name
        self.enabled = enabled
        self._owner = owner
        self._unlabelled: set[str] = set()  # splits that are left out
        self._metrics: dict[str, dict[str, Metric]] = {}  # split → metric → torchmetrics' object

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds a split without labels, before anything is trained.

        Raises:
            ConfigurationError: If the callback is asked for, but no sample of the split has a label.
        """
        split = "test" if stage == "test" else "val"
        has_labels = getattr(getattr(trainer, "datamodule", None), "has_labels", None)
        if stage == "predict" or (split == "val" and trainer.limit_val_batches == 0) or has_labels is None:
            return
        self._unlabelled.discard(split)
        if has_labels(split) is False:
            self._leave_out(split)

    def _leave_out(self, split: str) -> None:
        if self.enabled:
            raise ConfigurationError(
                f"{self._owner} is asked for, but no sample of the {split} split has a label: add labels, or leave "
                "out the split or the callback."
            )
        self._unlabelled.add(split)

    @abstractmethod
    def start_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calls `_measure` for a split that is to be measured; other splits are ignored."""

    @abstractmethod
    def _logits(self, features: Tensor, pl_module: LightningModule) -> Tensor:
        """Logits of embeddings ``(B, K)`` in float32, shape ``(B, classes)``."""

    def _find_num_classes(self, trainer: Trainer) -> int | None:
        """The number of classes of the data; None, with a message, if the data have no labels and `enabled` is None."""
        found: int | None = getattr(getattr(trainer, "datamodule", None), "num_classes", None)
        if found is None and self.enabled is None:
            rank_zero_info(f"The training data have no labels: {self._owner[0].lower()}{self._owner[1:]} is off.")
        elif found is None:
            raise ConfigurationError(
                f"{self._owner} is asked for, but the training data have no labels: add labels, pass `num_classes` if samples "
                "carry them, or do without it."
            )
        return found

    def _measure(self, split: str, num_classes: int, pl_module: LightningModule) -> None:
        """Starts to measure a split, unless it has no labels."""
        if split in self._unlabelled:
            return
        for top_k in (1, 5) if num_classes > 5 else (1,):
            metric = MulticlassStatScores(
                num_classes, top_k=top_k, average="micro", ignore_index=NO_LABEL, validate_args=False
            )
            self._metrics.setdefault(split, {})[f"top{top_k}"] = metric.to(pl_module.device)

    def _check_labels(self, label: Tensor, num_classes: int | None) -> None:
        # on an accelerator the comparison would synchronise at every step
        if label.device.type == "cpu" and num_classes and bool((label >= num_classes).any()):
            raise ConfigurationError(
                f"{self._owner} has {num_classes} classes, but a sample has label {int(label.max())}: set `num_classes` to at "
                f"least {int(label.max()) + 1}."
            )

    def measure_batch(
        self, split: str, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch
    ) -> None:
        """Measures the classifier on clean samples."""
        if split not in self._metrics:
            return
        with torch.no_grad():
            logits = self._logits(outputs["features"].float(), pl_module)
        self._check_labels(batch.label, logits.shape[1])
        label = torch.where(originals(batch, trainer), batch.label, NO_LABEL)
        for metric in self._metrics[split].values():
            metric.update(logits, label)

    def end_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy.

        Raises:
            ConfigurationError: If no sample of the split has a label.
        """
        self._log(split, pl_module)

    def _log(self, split: str, pl_module: LightningModule) -> None:
        for name, metric in self._metrics.pop(split, {}).items():
            correct, _, _, _, labelled = metric.compute()  # of all ranks
            if labelled == 0 and split != "train":
                if not pl_module.trainer.sanity_checking:  # which reads a few samples only
                    self._leave_out(split)
                continue
            accuracy = correct / labelled.clamp(min=1)
            # the values are equal on all ranks; `sync_dist` marks them as synchronised for Lightning
            pl_module.log(f"{split}/{self.name}_{name}", accuracy, prog_bar=name == "top1", sync_dist=True)


class ClassifierAccuracy(SplitAccuracy):
    """Logs the accuracy of the head of a `SupervisedModule`, ``val/supervised_top1`` and ``test/supervised_top1``.

    `SupervisedModule` adds it to the Trainer's callbacks.
    """

    def __init__(self) -> None:
        super().__init__("supervised", "The classifier", enabled=None)

    def start_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts to measure."""
        head: Any = pl_module.head
        self._measure(split, head.num_samples, pl_module)

    def _logits(self, features: Tensor, pl_module: LightningModule) -> Tensor:
        head: Any = pl_module.head
        return head.logits(features)  # type: ignore[no-any-return]
