"""SplitAccuracy: the accuracy of a classifier on the embeddings, each sample counted once on any number of ranks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from diet_lightning.callbacks.split_callback import SplitCallback, originals
from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import ConfigurationError


class _TopK(Metric):
    """Counts the labelled samples whose label is among the `k` largest logits, and all labelled samples, over the ranks.

    Unlike torchmetrics' own metrics with `ignore_index` it does not select the labelled samples: an accelerator would have to
    be waited for to know their number.
    """

    full_state_update = False
    correct: Tensor
    labelled: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        for name in ("correct", "labelled"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Adds a batch: logits ``(B, classes)`` and labels ``(B,)``."""
        best = logits.argmax(1, keepdim=True) if self.k == 1 else logits.topk(self.k).indices
        self.correct += (best == label[:, None]).sum()  # NO_LABEL is not among them
        self.labelled += (label != NO_LABEL).sum()

    def compute(self) -> Tensor:
        """Both counts, shape ``(2,)``."""
        return torch.stack([self.correct, self.labelled])


class SplitAccuracy(SplitCallback):
    """Logs ``val/{name}_top1`` and ``test/{name}_top1`` on clean samples, and ``top5`` with more than five classes.

    Samples without a label (-1) are ignored. Subclasses give the logits, and call `_measure` when a split starts.

    Args:
        name: Name of the metrics.
        owner: Name of the classifier in messages.
        num_classes: Number of classes; None reads it from the data module.
        enabled: None leaves out what has no labels, with a message; True raises an error then.
    """

    def __init__(self, name: str, owner: str, num_classes: int | None, enabled: bool | None) -> None:
        self.name = name
        self.num_classes = self._given_classes = num_classes
        self.enabled = enabled
        self._owner = owner
        self._unlabelled: set[str] = set()  # splits that are left out
        self._metrics: dict[str, MetricCollection] = {}  # by split

    @abstractmethod
    def _logits(self, features: Tensor, pl_module: LightningModule) -> Tensor:
        """Logits of embeddings ``(B, K)`` in float32, shape ``(B, classes)``."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the number of classes and a split without labels, before anything is trained; a fit starts over.

        Raises:
            ConfigurationError: If `enabled` is True and the training samples or those of the split have no labels.
        """
        if stage == "fit":  # an earlier fit may have been of other data
            self.num_classes = self._given_classes
            self._metrics.clear()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if self.enabled is not False and self.num_classes is None:
            self.num_classes = getattr(data, "num_classes", None)
            if self.num_classes is None:
                self._leave_out_data()
                return
        split = "test" if stage == "test" else "val"
        if stage == "predict" or (split == "val" and trainer.limit_val_batches == 0) or not hasattr(data, "has_labels"):
            return
        self._unlabelled.discard(split)
        if data.has_labels(split) is False:
            self._leave_out(split)

    def _leave_out_data(self) -> None:
        if self.enabled is None:
            rank_zero_info(f"The training data have no labels: {self._owner[0].lower()}{self._owner[1:]} is off.")
        else:
            raise ConfigurationError(
                f"{self._owner} is enabled, but the training data have no labels: add labels, set the callback's `num_classes` if "
                "samples carry labels that were not read, or do without it."
            )

    def _leave_out(self, split: str) -> None:
        if self.enabled:
            raise ConfigurationError(
                f"{self._owner} is enabled, but no sample of the {split} split has a label: add labels, or leave "
                "out the split or the callback."
            )
        self._unlabelled.add(split)

    @property
    def _is_on(self) -> bool:
        return self.enabled is not False and self.num_classes is not None

    def _measure(self, split: str, pl_module: LightningModule) -> None:
        """Starts to measure a split, unless it has no labels."""
        if split in self._unlabelled:
            return
        classes = self.num_classes or 0
        metrics: dict[str, Any] = {f"top{k}": _TopK(k) for k in ((1, 5) if classes > 5 else (1,))}
        self._metrics[split] = MetricCollection(metrics, compute_groups=False).to(pl_module.device)

    def _check_labels(self, label: Tensor) -> None:
        # on an accelerator the comparison would synchronise at every step
        if label.device.type == "cpu" and self.num_classes and bool((label >= self.num_classes).any()):
            raise ConfigurationError(
                f"{self._owner} has {self.num_classes} classes, but a sample has label {int(label.max())}: set `num_classes` "
                f"to at least {int(label.max()) + 1}."
            )

    def measure_batch(
        self, split: str, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch
    ) -> None:
        """Measures the classifier on clean samples."""
        if split not in self._metrics:
            return
        self._check_labels(batch.label)
        with torch.no_grad():
            logits = self._logits(outputs["features"].float(), pl_module)
        self._metrics[split].update(logits, torch.where(originals(batch, trainer), batch.label, NO_LABEL))

    def end_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy.

        Raises:
            ConfigurationError: If no sample of the validation or test split has a label.
        """
        if split not in self._metrics:
            return
        for name, (correct, labelled) in self._metrics.pop(split).compute().items():  # of all ranks
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
        super().__init__("supervised", "The classifier", None, enabled=False)  # the classes are the head's

    def start_split(self, split: str, trainer: Trainer, pl_module: Any) -> None:
        """Starts to measure."""
        self.num_classes = pl_module.head.num_samples
        self._measure(split, pl_module)

    def _logits(self, features: Tensor, pl_module: Any) -> Tensor:
        return pl_module.head.logits(features)  # type: ignore[no-any-return]
