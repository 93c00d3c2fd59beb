"""SplitCallback: the base of callbacks that measure clean samples of the validation and the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diet_lightning.data.batch import DatumBatch


class SplitCallback(Callback, ABC):
    """Maps Lightning's validation and test hooks to one set of hooks that take the name of the split, ``val`` or ``test``."""

    def start_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the first batch."""

    @abstractmethod
    def measure_batch(
        self, split: str, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch
    ) -> None:
        """Called after each batch, with what the module's step returned."""

    @abstractmethod
    def end_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called after the last batch."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the split."""
        self.start_split(_split(trainer), trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, *_: Any, **__: Any
    ) -> None:
        """Measures a batch."""
        self.measure_batch(_split(trainer), trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the split."""
        self.end_split(_split(trainer), trainer, pl_module)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def _split(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def originals(batch: DatumBatch, trainer: Trainer) -> Tensor:
    """Which samples of an ordered batch are originals and not repeats, bool, shape ``(B,)``.

    Distributed samplers repeat the first samples at the end; an original is on the rank ``index % world_size``.
    """
    return batch.index % trainer.world_size == trainer.global_rank
