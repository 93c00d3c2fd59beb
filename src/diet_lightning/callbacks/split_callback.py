"""SplitCallback: the base of callbacks that measure clean samples of the validation and the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diet_lightning.data.batch import DatumBatch


class SplitCallback(Callback, ABC):
    """Maps Lightning's validation and test hooks to one set of hooks that take the name of the split."""

    def start_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the first batch of ``"val"`` or ``"test"``."""

    @abstractmethod
    def measure_batch(
        self, split: str, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch
    ) -> None:
        """Called after each batch, with what the module's step returned."""

    @abstractmethod
    def end_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after the last batch."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the validation split."""
        self.start_split("val", trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the test split."""
        self.start_split("test", trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: DatumBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measures a batch of the validation split."""
        self.measure_batch("val", trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: DatumBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measures a batch of the test split."""
        self.measure_batch("test", trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the validation split."""
        self.end_split("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the test split."""
        self.end_split("test", trainer, pl_module)


def originals(batch: DatumBatch, trainer: Trainer) -> Tensor:
    """Which samples of an ordered batch are originals and not repeats, bool, shape ``(B,)``.

    Distributed samplers repeat the first samples at the end; an original is on the rank ``index % world_size``.
    """
    return batch.index % trainer.world_size == trainer.global_rank
