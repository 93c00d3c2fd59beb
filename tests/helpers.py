"""Small data and a small network for any test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = pytest.param("cuda", marks=ON_GPU)
each_device = pytest.mark.parametrize("device", ["cpu", CUDA])  # the same test, on each


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


def assert_near(found: Tensor, exact: Tensor, start: Tensor, bound: float) -> None:
    """Asserts that the distance to the exact weights is less than `bound` times the way there from the start."""
    deviation = (found.cpu().double() - exact).norm() / (exact - start).norm()
    assert deviation < bound, deviation


TWO_RANKS = """
import sys
sys.path.insert(0, {tests!r})
from helpers import TinyNet, image_data
from lightning.pytorch import Trainer
from diet_lightning import DIETModule
{before}
Trainer(
    accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=1, logger=False, {options}
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
).fit(DIETModule(TinyNet()), image_data(48, batch_size=8))
"""


def fit_on_two_ranks(folder: Path, before: str = "", options: str = "") -> str:
    """Fits in two processes, in a folder, with code that is run before and more options of the Trainer; returns the output."""
    code = TWO_RANKS.format(tests=str(Path(__file__).parent), before=before, options=options)
    (folder / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
