"""FiniteGuard: stops before a non-finite loss reaches the weights."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import NonFiniteError

SHOWN = 8  # indices named in the message


class FiniteGuard(Callback):
    """Stops a run at the first loss that is not finite, before its gradients reach the weights.

    Lightning itself trains on through NaN. With `InterruptCheckpoint` the state before the step is saved.

    Raises:
        NonFiniteError: While training, with step, learning rate and the indices of the batch or of its bad inputs.
    """

    def __init__(self) -> None:
        self._batch: DatumBatch | None = None  # of the step under way, to name its samples

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: DatumBatch, batch_idx: int
    ) -> None:
        """Keeps the batch at hand."""
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Looks at the loss; with several ranks all of them stop if one must."""
        finite = bool(torch.isfinite(loss))
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite or self._batch is None:
            return
        rows = torch.isfinite(self._batch.input.flatten(1)).all(dim=1)
        bad = self._batch.index[~rows].tolist()
        indices = bad or self._batch.index.tolist()
        listed = ", ".join(map(str, indices[:SHOWN])) + (", …" if len(indices) > SHOWN else "")
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        cause = (
            f"the inputs with index {listed} are not finite: mend or remove them"
            if bad
            else f"its inputs are finite (index {listed}): lower `lr`, or use precision 32-true or bf16-mixed"
        )
        raise NonFiniteError(
            f"The loss is {loss.item()} at step {trainer.global_step} (epoch {trainer.current_epoch}, lr {lr:.3g}, "
            f"precision {trainer.precision}), and {cause}."
        )

    def on_train_batch_end(self, *_: object) -> None:
        """Lets go of the batch."""
        self._batch = None
