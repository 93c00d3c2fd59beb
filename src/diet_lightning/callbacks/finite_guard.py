"""FiniteGuard: stops before a non-finite loss reaches the weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import NonFiniteError
from diet_lightning.utilities.text import first_few

SHOWN = 8  # indices named in the message


class _Loss(NamedTuple):
    batch: DatumBatch
    loss: Tensor
    finite: Tensor  # a scalar on the CPU
    known: torch.cuda.Event | None  # when it is there

    def is_known(self) -> bool:
        return self.known is None or bool(self.known.query())  # type: ignore[no-untyped-call]


class FiniteGuard(Callback):
    """Stops a run at the first loss that is not finite, before its gradients reach the weights.

    Lightning's own `EarlyStopping` with ``check_finite`` stops after they did. With `InterruptCheckpoint` the state before the
    step is saved.

    Raises:
        NonFiniteError: While training, with step, learning rate and the indices of the batch or of its bad inputs.
    """

    def __init__(self) -> None:
        self._batch: DatumBatch | None = None  # of the step under way, to name its samples
        self._unchecked: list[_Loss] = []  # since the optimiser's last step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: DatumBatch, batch_idx: int
    ) -> None:
        """Keeps a reference to the batch, to name its samples."""
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Starts to copy the loss to the CPU, without waiting for the accelerator."""
        if self._batch is None:
            return
        finite, known = torch.isfinite(loss.detach()), None
        if loss.device.type == "cuda":
            finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            known = torch.cuda.Event()  # type: ignore[no-untyped-call]
            known.record()
        # those that are known to be finite need not be kept
        self._unchecked = [seen for seen in self._unchecked if not (seen.is_known() and seen.finite)]
        self._unchecked.append(_Loss(self._batch, loss.detach(), finite, known))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Stops the run on all ranks; the accelerator computes the backward pass while the loss is read."""
        unchecked, self._unchecked = self._unchecked, []
        for seen in unchecked:
            if seen.known is not None:
                seen.known.synchronize()
        bad = next((seen for seen in unchecked if not seen.finite), None)
        finite = trainer.strategy.reduce_boolean_decision(bad is None, all=True)
        if bad is not None:
            self._stop(trainer, bad)
        elif not finite:
            raise NonFiniteError(
                f"The loss of another rank is not finite at step {trainer.global_step}: its message names the samples."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clears the state of an aborted run."""
        self._unchecked.clear()

    @staticmethod
    def _stop(trainer: Trainer, seen: _Loss) -> None:
        finite = torch.isfinite(seen.batch.input.flatten(1)).all(dim=1)
        bad = seen.batch.index[~finite].tolist()
        indices = bad or seen.batch.index.tolist()
        listed = first_few(map(str, indices), limit=SHOWN)
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        cause = (
            f"the inputs with index {listed} are not finite: correct or remove them"
            if bad
            else f"its inputs are finite (index {listed}): lower `lr`, or use precision 32-true or bf16-mixed"
        )
        raise NonFiniteError(
            f"The loss is {seen.loss.item()} at step {trainer.global_step} (epoch {trainer.current_epoch}, lr {lr:.3g}, "
            f"precision {trainer.precision}), and {cause}."
        )

    def on_train_batch_end(self, *_: object) -> None:
        """Drops the reference to the batch."""
        self._batch = None
