"""The paper's schedule: batch-scaled learning rate, linear warm-up, cosine."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

REFERENCE_BATCH = 256  # the batch size of the paper's learning rate


def scaled_lr(lr: float, total_batch: int) -> float:
    """Learning rate for a batch, by the linear rule.

    Args:
        lr: Learning rate at a batch of 256.
        total_batch: Samples per optimiser step: batch × ranks × accumulation.

    Returns:
        ``lr * total_batch / 256``.

    Example:
        >>> scaled_lr(1e-3, 512)
        0.002
    """
    return lr * total_batch / REFERENCE_BATCH


def warmup_steps(warmup_epochs: float, max_epochs: float, total_steps: int) -> int:
    """Number of warm-up steps: `warmup_epochs`, but never more than a tenth of the run.

    Args:
        warmup_epochs: Epochs of linear warm-up.
        max_epochs: Epochs of the run.
        total_steps: Optimiser steps of the run.

    Returns:
        Steps, at least 0.

    Example:
        >>> warmup_steps(10, max_epochs=200, total_steps=2000), warmup_steps(10, max_epochs=50, total_steps=500)
        (100, 50)
    """
    return round(total_steps * min(warmup_epochs / max_epochs, 0.1))


def lr_factor(step: int, warmup: int, total_steps: int, lowest: float = 0.0) -> float:
    """Factor of the learning rate at a step: linear to 1 over `warmup` steps, then half a cosine down to `lowest`.

    Args:
        step: Optimiser steps taken so far.
        warmup: Steps of linear warm-up; the first step already has ``1 / warmup``.
        total_steps: Steps of the whole run.
        lowest: The factor at the end of the run.

    Returns:
        A number in ``[0, 1]``.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def warmup_cosine(optimizer: Optimizer, warmup: int, total_steps: int, lowest: float = 0.0) -> LambdaLR:
    """Scheduler over `lr_factor`, to be stepped after every optimiser step.

    Args:
        optimizer: The optimiser whose learning rates are the peak values.
        warmup: Steps of warm-up.
        total_steps: Steps of the run.
        lowest: Final learning rates as a fraction of the peak values, in ``[0, 1]``.

    Returns:
        The scheduler; its state holds plain numbers only.
    """
    return LambdaLR(optimizer, partial(lr_factor, warmup=warmup, total_steps=total_steps, lowest=lowest))


def match_layout(optimizer: Optimizer) -> None:
    """Converts moments from a checkpoint to the memory format of their parameters, which fused steps need.

    Args:
        optimizer: The optimiser, with its state loaded.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
