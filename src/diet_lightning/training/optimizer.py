"""AdamW and its learning rate: scaled by the batch, with linear warm-up and cosine, as in the paper."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective import DatumHead, HeadConfig

REFERENCE_BATCH = 256  # the batch size of the paper's learning rate


def find_batch_size(trainer: Trainer) -> int | None:
    """The batch size of the data module or the training loader; None if neither has one."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    loader: Any = trainer.train_dataloader
    found = getattr(data, "batch_size", None) or getattr(loader, "batch_size", None)
    return None if found is None else int(found)


def total_batch(trainer: Trainer) -> int:
    """Samples per optimiser step: batch × ranks × accumulation.

    Raises:
        ConfigurationError: If the batch size cannot be found.
    """
    batch = find_batch_size(trainer)
    if batch is None:
        raise ConfigurationError(
            "DIETModule cannot find the batch size that the learning rate is scaled by: use a DIETDataModule or a "
            "DataLoader with `batch_size`."
        )
    return batch * trainer.world_size * trainer.accumulate_grad_batches


def count_steps(trainer: Trainer) -> int:
    """Optimiser steps of the run.

    Raises:
        ConfigurationError: If neither `max_epochs` nor `max_steps` ends the run.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ConfigurationError(
            "Expected Trainer argument `max_epochs` or `max_steps` to end the run, but got neither: the cosine schedule "
            "needs an end."
        )
    return int(steps)


def scaled_lr(lr: float, total_batch: int) -> float:
    """The learning rate for a batch, from that at a batch of 256, by the linear rule.

    Example:
        >>> scaled_lr(1e-3, 512)
        0.002
    """
    return lr * total_batch / REFERENCE_BATCH


def make_optimizer(
    backbone: nn.Module, head: DatumHead, config: HeadConfig, lr: float, weight_decay: float, trainer: Trainer
) -> torch.optim.AdamW:
    """Makes AdamW with one group for the backbone and one for the head, and attaches the head to it.

    `lr`, at a total batch of 256, is scaled by the Trainer's; `config` may have another one, and another decay, for the head.

    Raises:
        ConfigurationError: If the batch size cannot be found.
    """
    batch = total_batch(trainer)
    groups: list[dict[str, Any]] = [
        {"params": list(backbone.parameters()), "name": "backbone"},
        {
            "params": list(head.parameters()),
            "name": "head",
            "lr": scaled_lr(lr if config.lr is None else config.lr, batch),
            "weight_decay": weight_decay if config.weight_decay is None else config.weight_decay,
            "eps": config.eps,
        },
    ]
    # the loss scaler of fp16 and clipping need the unfused step; elsewhere fused is the fast one at large N
    on_device = trainer.strategy.root_device.type in ("cpu", "cuda")
    fused = on_device and trainer.precision not in ("16-mixed", "16")
    optimizer = torch.optim.AdamW(groups, lr=scaled_lr(lr, batch), weight_decay=weight_decay, fused=fused)
    head.attach(optimizer)
    return optimizer


def match_layout(optimizer: Optimizer) -> None:
    """Converts moments from a checkpoint to the memory format of their parameters, which fused steps need."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def warmup_steps(warmup_epochs: float, max_epochs: float, total_steps: int) -> int:
    """Steps of `warmup_epochs`, but at most a tenth of the run of `max_epochs` and `total_steps`.

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
    """Scheduler over `lr_factor`, to be stepped after every optimiser step; its state holds plain numbers only."""
    return LambdaLR(optimizer, partial(lr_factor, warmup=warmup, total_steps=total_steps, lowest=lowest))
