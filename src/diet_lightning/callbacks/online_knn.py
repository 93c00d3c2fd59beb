"""OnlineKNN: accuracy of nearest neighbours among the embeddings of the training batches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from diet_lightning.callbacks.split_accuracy import SplitAccuracy
from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import require, require_positive
from diet_lightning.evaluation.neighbours import knn_probabilities, nearest_neighbours


class OnlineKNN(SplitAccuracy):
    """Weighted nearest neighbours of the validation samples among the embeddings of the last training batches.

    The bank holds the embeddings of the training steps, so nothing is embedded twice. They are of augmented samples, by a
    backbone that was still training, so accuracies are slightly below those of `diet test`. The bank is not saved in
    checkpoints: after resuming within an epoch the first measurement uses the later samples of that epoch only. Logs
    ``val/{name}_top1``, and ``top5`` with more than five classes; also ``test/{name}_top1`` in the process that has trained.

    Args:
        name: Name of the metrics.
        k: Number of neighbours; at most the samples in the bank.
        temperature: Temperature of the neighbours' votes, see `knn_probabilities`.
        bank_size: Samples in the bank, on each device, in half precision: 32,768 of 512 dimensions take 32 MiB.
        num_classes: Number of classes; None reads it from the data module.
        enabled: None leaves out data without labels, with a message; True raises an error then.

    Raises:
        ConfigurationError: If an argument is outside its range, or labels are missing.
    """

    def __init__(
        self,
        name: str = "knn",
        k: int = 20,
        temperature: float = 0.07,
        bank_size: int = 32768,
        num_classes: int | None = None,
        enabled: bool | None = True,
    ) -> None:
        super().__init__(name, f"Callback {name!r}", num_classes, enabled)
        require_positive(k=k, bank_size=bank_size)
        require(temperature > 0.0, "temperature", "greater than 0", temperature)
        self.k = k
        self.temperature = temperature
        self.bank_size = bank_size
        self._parts: list[tuple[Tensor, Tensor]] = []  # embeddings of unit norm and labels, a batch each, oldest first
        self._bank: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))  # of all ranks, while a split is measured

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the number of classes and the splits without labels; a fit starts with an empty bank."""
        if stage == "fit":
            self._parts = []
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, batch_idx: int
    ) -> None:
        """Adds the embeddings of the step to the bank and drops the oldest."""
        if not self._is_on:
            return
        self._check_labels(batch.label)
        self._parts.append((F.normalize(outputs["features"].float(), dim=1).half(), batch.label))
        while sum(len(labels) for _, labels in self._parts[1:]) >= self.bank_size:
            del self._parts[0]

    def start_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the bank of all ranks and starts to measure."""
        if not self._parts:
            return
        features, labels = (torch.cat(parts)[-self.bank_size :] for parts in zip(*self._parts, strict=True))
        if trainer.world_size > 1:  # every rank has trained on the same number of samples
            features, labels = (trainer.strategy.all_gather(part).flatten(0, 1) for part in (features, labels))
        known = labels != NO_LABEL
        if bool(known.any()):
            self._bank = features[known].float(), labels[known]
            self._measure(split, pl_module)

    def _logits(self, features: Tensor, pl_module: LightningModule) -> Tensor:
        bank, labels = self._bank
        similarity, found = nearest_neighbours(features, bank, min(self.k, len(bank)))
        return knn_probabilities(similarity, labels[found], self.num_classes or 0, self.temperature)
