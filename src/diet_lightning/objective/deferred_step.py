"""DeferredStepHead: the base of heads that update W themselves, after the optimiser's step."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective.dense import DatumHead
from diet_lightning.objective.loss import check_batch
from diet_lightning.objective.moments import Moments


class DeferredStepHead(DatumHead):
    """A head whose W never has a ``grad``: it updates W right after the optimiser's step on the other parameters.

    Learning rate, decay, betas and eps are those of the parameter group of W, and the moments are stored in the optimiser's
    state as AdamW stores them. Clipping and the loss scaler of fp16 are not supported, since they need all gradients before
    the step. One process only.
    """

    steps_itself = True
    _moments: Moments  # once it is attached

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pending: list[Any] = []  # data of the batches since the last step
        self._attached = False

    def attach(self, optimizer: Optimizer) -> None:
        """Registers the update of W after each step of `optimizer`, an AdamW with W among its parameters."""
        optimizer.register_step_post_hook(self._after)
        self._moments = Moments(self.weight)
        self._attached = True
        self._pending.clear()  # left by an aborted run

    def _check(self, features: Tensor, index: Tensor) -> None:
        if torch.is_grad_enabled() and not self._attached:
            raise ConfigurationError(
                f"A {type(self).__name__} steps with its optimiser: call `attach(optimizer)` before training."
            )
        check_batch(features, self.weight, index, self.num_samples)

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        pending = self._pending.copy()
        self._pending.clear()
        if not pending:
            return
        group = next(group for group in optimizer.param_groups if any(p is self.weight for p in group["params"]))
        state = optimizer.state[self.weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=self.weight.device)
            state.update(self._moments.new())
        self._step(pending, group, state)

    @abstractmethod
    def _step(self, pending: list[Any], group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """Updates W for the pending batches, and counts the step in `state`."""


def adamw_step(
    weight: Tensor, gradient: Tensor, average: Tensor, square: Tensor, steps_taken: Tensor, group: dict[str, Any]
) -> None:
    """A step of `torch.optim.AdamW`, by torch's own kernel, on some rows of a parameter and their two moments, in place.

    `steps_taken`, a scalar, counts the steps before this one and is not changed; `group` holds lr, weight_decay, betas, eps.
    """
    adamw(
        [weight],
        [gradient],
        [average],
        [square],
        [],
        [steps_taken.to(weight.device, copy=True)],  # a copy, since the kernel increments it
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
