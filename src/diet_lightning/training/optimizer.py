"""The optimiser of a run, and the batch size by which its learning rate is scaled."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective import DatumHead, HeadConfig
from diet_lightning.training.schedule import scaled_lr


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


def count_epochs(trainer: Trainer) -> float:
    """Epochs of the run; fractional if `max_steps` ends it within an epoch."""
    if trainer.num_training_batches == float("inf"):  # with `max_steps` alone Lightning has not set up the loader yet
        trainer.fit_loop.setup_data()
    steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
    return trainer.estimated_stepping_batches / max(1, steps)


def make_optimizer(
    backbone: nn.Module, head: DatumHead, config: HeadConfig, lr: float, weight_decay: float, trainer: Trainer
) -> torch.optim.AdamW:
    """Makes AdamW with one group for the backbone and one for the head, and attaches the head to it.

    Args:
        backbone: The backbone.
        head: The head.
        config: Settings of the head.
        lr: Learning rate at a total batch of 256.
        weight_decay: Weight decay of the backbone, and of the head if `config` has none.
        trainer: The Trainer, whose devices and batches scale the learning rates.

    Returns:
        The optimiser.

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
