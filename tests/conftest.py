"""What every test shares: a quiet, short Trainer and small data with structure."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: for tensors as small as these, threads only wait for each other

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule

# how fast examples are made depends on what else the machine does
settings.register_profile("diet", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("diet")


@pytest.fixture(autouse=True)
def clean_dir(tmp_path, monkeypatch):
    """Every test works in a folder of its own, so that nothing is left in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """A Trainer on the CPU that prints and writes nothing unless asked to."""

    def make(**options: Any) -> Trainer:
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 2,
        }
        return Trainer(**{**quiet, **options})

    return make


def images(count: int = 48, channels: int = 3, side: int = 8, seed: int = 0) -> Tensor:
    """Random uint8 images, shape ``(count, channels, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


def image_data(count: int = 48, classes: int = 4, **options: Any) -> DIETDataModule:
    """A data module of random labelled images, with a validation split."""
    labels = torch.arange(count) % classes
    train, val = TensorDataset(images(count), labels), TensorDataset(images(20, seed=1), torch.arange(20) % classes)
    return DIETDataModule.from_datasets(train, val, **{"batch_size": 16, **options})


class TinyNet(nn.Module):
    """Convolution, dropout and pooling to 12 dimensions, without batch norm."""

    def __init__(self, channels: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 12, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.convolution(x).relu().mean(dim=(2, 3)))
