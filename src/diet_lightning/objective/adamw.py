"""AdamW's step on some rows of a parameter, by torch's own kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.adamw import adamw


def adamw_step(
    weights: list[Tensor],
    gradients: list[Tensor],
    averages: list[Tensor],
    squares: list[Tensor],
    steps_taken: Tensor,
    group: dict[str, Any],
) -> None:
    """A step of `torch.optim.AdamW`, by torch's own kernel, on parts of a parameter.

    Args:
        weights: Parts of the parameter, changed in place.
        gradients: Their gradients.
        averages: First moments, changed in place.
        squares: Second moments, changed in place.
        steps_taken: Steps before this one, a scalar; not changed.
        group: Learning rate, decay, betas and eps.
    """
    adamw(
        weights,
        gradients,
        averages,
        squares,
        [],
        [steps_taken.to(weights[0].device, copy=True) for _ in weights],  # a copy, since the kernel increments it
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
