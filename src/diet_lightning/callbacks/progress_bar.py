"""FitProgressBar: the progress of a fit on one line."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from diet_lightning.data.batch import DatumBatch
from diet_lightning.objective import DatumHead
from diet_lightning.runs.metrics import is_accuracy

INTERVAL = 0.5  # seconds between updates: each of them waits for the accelerator


class FitProgressBar(TQDMProgressBar):
    """Lightning's bar with loss, loss gap, the probe's accuracy, samples per second and the remaining time of the fit.

    It is drawn at most twice a second; between two updates nothing is read from the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self._start = self._drawn = 0.0  # when training began, and when the line was last drawn
        self._first_step = self._samples = 0  # at the start, and trained on since the line was drawn
        self._rate = ""

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Starts the clocks."""
        super().on_train_start(trainer, *args)
        self._start = self._drawn = time.perf_counter()
        self._first_step, self._samples, self._rate = trainer.global_step, 0, ""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, batch_idx: int
    ) -> None:
        """Counts the samples of all ranks, and draws the line if it is due."""
        self._samples += len(batch.index) * trainer.world_size
        elapsed = time.perf_counter() - self._drawn
        if elapsed >= INTERVAL or batch_idx + 1 == self.total_train_batches:
            self._rate = f"{self._samples / elapsed:.0f}"
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._samples, self._drawn = 0, time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Excludes the time of validation from the rate."""
        super().on_validation_end(trainer, pl_module)
        self._samples, self._drawn = 0, time.perf_counter()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The items at the end of the line."""
        logged = trainer.progress_bar_metrics
        shown: dict[str, Any] = {}
        if (loss := logged.get("train/loss_step")) is not None:
            shown["loss"] = f"{loss:.3f}"
            head = getattr(pl_module, "head", None)
            if isinstance(head, DatumHead):
                shown["gap"] = f"{loss - head.floor:.3f}"
        for name, value in logged.items():
            if name.endswith("_top1") and is_accuracy(name, ("val",)):
                shown[name.removeprefix("val/").removesuffix("_top1")] = f"{value:.1%}"
        if self._rate:
            shown["samples/s"] = self._rate
        steps, total = trainer.global_step - self._first_step, trainer.estimated_stepping_batches
        if steps and total != float("inf"):
            seconds = (total - trainer.global_step) * (time.perf_counter() - self._start) / steps
            shown["left"] = str(timedelta(seconds=round(seconds)))
        return shown
