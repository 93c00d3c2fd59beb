"""FeatureRank: how many dimensions the embeddings use, and a warning where they collapse."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from diet_lightning.callbacks.split_callback import SplitCallback, originals
from diet_lightning.data.batch import DatumBatch
from diet_lightning.evaluation.rank import effective_rank, rankme, singular_values

ENOUGH = 16  # samples; the rank of fewer is not meaningful


class FeatureRank(SplitCallback):
    """Measures the rank of the embeddings, without labels.

    Logs ``val/rankme`` (Garrido et al., ICML 2023) and ``val/effective_rank``, the number of directions in which the
    embeddings vary, of the clean validation samples. Both are between 1 and the dimension K of the embeddings. Without
    validation samples it logs ``train/rankme`` and ``train/effective_rank`` of the augmented samples of the training epoch.
    `Trainer.test` logs ``test/rankme`` and ``test/effective_rank``. The device is synchronised at the end of an epoch only;
    the callback holds K² sums in float64.

    Args:
        warn_below: Value of RankMe below which a warning reports a collapse. RankMe is 1 if all embeddings have one
            direction; a trained backbone reaches tens.
    """

    def __init__(self, warn_below: float = 1.5) -> None:
        self.warn_below = warn_below
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None  # of outer products, of embeddings, number of samples
        self._first: float | None = None  # RankMe when the run began
        self._warned = False  # once is enough

    def _add(self, features: Tensor, counts: Tensor) -> None:
        dtype = torch.float32 if features.device.type == "mps" else torch.float64
        rows = features.detach().to(dtype) * counts[:, None]
        if self._sums is None:
            dim = rows.shape[1]
            self._sums = rows.new_zeros(dim, dim), rows.new_zeros(dim), rows.new_zeros(())
        for held, part in zip(self._sums, (rows.T @ rows, rows.sum(0), counts.sum()), strict=True):
            held += part

    def end_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the rank of the split's samples."""
        if self._sums is None:
            return
        outer, total, count = (trainer.strategy.reduce(each, reduce_op="sum").double().cpu() for each in self._sums)
        self._sums = None
        samples = int(count)
        rank = rankme(singular_values(outer, samples))
        for name, value in {"rankme": rank, "effective_rank": effective_rank(outer, total, samples)}.items():
            pl_module.log(f"{split}/{name}", torch.tensor(value, dtype=torch.float32), sync_dist=True)
        self._first = rank if self._first is None else self._first
        if rank < self.warn_below and samples >= ENOUGH and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"The embeddings have collapsed: RankMe is {rank:.2f} (1 is one direction for all, at most {len(total)}; it "
                f"was {self._first:.1f} at first). Lower `lr`, lengthen `warmup_epochs`, or check that the inputs differ."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, batch_idx: int
    ) -> None:
        """Adds the embeddings of the training step, if the run has no validation."""
        if not self._has_validation(trainer):
            self._add(outputs["features"], torch.ones(len(batch.index), device=batch.index.device))

    @staticmethod
    def _has_validation(trainer: Trainer) -> bool:
        return trainer.enable_validation and sum(trainer.num_val_batches) > 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the rank of the training samples, if they were added."""
        if not self._has_validation(trainer):
            self.end_split("train", trainer, pl_module)

    def measure_batch(
        self, split: str, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch
    ) -> None:
        """Adds clean samples, each once."""
        if not trainer.sanity_checking:
            self._add(outputs["features"], originals(batch, trainer).to(torch.float32))
