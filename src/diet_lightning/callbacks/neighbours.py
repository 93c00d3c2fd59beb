"""OnlineKNN: how good the embeddings are by their neighbours, with nothing to train."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diet_lightning.callbacks.accuracy import LabelAccuracy, check_labels, find_num_classes, originals
from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import ConfigurationError
from diet_lightning.neighbours import knn_probabilities, nearest_neighbours


class OnlineKNN(Callback):
    """Weighted nearest neighbours of the validation samples among the embeddings of the last training batches.

    The bank holds what the training steps computed anyway (augmented samples, by a backbone that was still learning), so
    nothing is embedded twice, and accuracies lie a little below those of `diet test`. It is not kept in checkpoints: after
    resuming within an epoch the first measurement sees that epoch's later samples only. Logs ``{name}/val_top1`` and
    ``{name}/test_top1`` (with a bank only, so in the process that trained), and ``top5`` with more than five classes.

    Args:
        name: Prefix of the metrics.
        k: Neighbours; fewer where the bank holds fewer.
        temperature: Of their weights, see `knn_probabilities`.
        bank_size: Samples kept, on each device, in half precision: 512 dimensions of 32,768 take 32 MiB.
        num_classes: Number of classes; None reads it from the data module.
        enabled: None switches it off, with a message, where the data have no labels; True raises there.

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
        for argument, value in {"k": k, "bank_size": bank_size}.items():
            if value < 1:
                raise ConfigurationError(f"Expected argument `{argument}` to be at least 1, but got {value}.")
        if not temperature > 0.0:
            raise ConfigurationError(f"Expected argument `temperature` to be greater than 0, but got {temperature}.")
        self.name = name
        self.k = k
        self.temperature = temperature
        self.bank_size = bank_size
        self.num_classes = num_classes
        self.enabled = enabled
        self._bank: list[tuple[Tensor, Tensor]] = []  # embeddings of unit norm and labels, a batch each, oldest first
        self._whole: tuple[Tensor, Tensor] | None = None  # of all ranks, while a split is measured
        self._accuracy: LabelAccuracy | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the number of classes, before anything is trained."""
        if self.enabled is not False and self.num_classes is None:
            self.num_classes = find_num_classes(trainer, f"Probe {self.name!r}", self.enabled)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, batch_idx: int
    ) -> None:
        """Keeps the step's embeddings, and lets the oldest go."""
        if self.num_classes is None or self.enabled is False:
            return
        check_labels(batch.label, self.num_classes, f"Probe {self.name!r}")
        self._bank.append((F.normalize(outputs["features"].float(), dim=1).half(), batch.label))
        while sum(len(labels) for _, labels in self._bank[1:]) >= self.bank_size:
            del self._bank[0]

    def _start(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        self._accuracy = self._whole = None
        if not self._bank or self.num_classes is None or trainer.sanity_checking:
            return
        features, labels = (torch.cat(parts)[-self.bank_size :] for parts in zip(*self._bank, strict=True))
        if trainer.world_size > 1:  # every rank has trained on as many samples
            features, labels = (pl_module.all_gather(part).flatten(0, 1) for part in (features, labels))
        known = labels != NO_LABEL
        if bool(known.any()):
            self._whole = features[known].float(), labels[known]
            self._accuracy = LabelAccuracy(f"{self.name}/{split}", self.num_classes, pl_module.device)

    def _measure(self, trainer: Trainer, outputs: Any, batch: DatumBatch) -> None:
        if self._accuracy is None or self._whole is None:
            return
        check_labels(batch.label, self.num_classes, f"Probe {self.name!r}")
        features, labels = self._whole
        similarity, found = nearest_neighbours(outputs["features"].float(), features, min(self.k, len(features)))
        votes = knn_probabilities(similarity, labels[found], self.num_classes or 0, self.temperature)
        self._accuracy.update(votes, originals(batch, trainer))

    def _log(self, pl_module: LightningModule) -> None:
        if self._accuracy is not None:
            self._accuracy.log(pl_module, required=True)
        self._accuracy = self._whole = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the bank."""
        self._start("val", trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the bank."""
        self._start("test", trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: DatumBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lets the neighbours of each sample vote."""
        self._measure(trainer, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: DatumBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lets the neighbours of each sample vote."""
        self._measure(trainer, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy."""
        self._log(pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy."""
        self._log(pl_module)
