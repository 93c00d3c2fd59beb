"""What every test shares: a quiet, short Trainer and a folder of its own."""

from __future__ import annotations

import logging
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: for tensors as small as these, threads only wait for each other

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from lightning.pytorch import Trainer

MATPLOTLIB = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "matplotlib")

# how fast examples are made depends on what else the machine does
settings.register_profile("diet", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("diet")


@pytest.fixture(autouse=True)
def clean_dir(tmp_path, tmp_path_factory, monkeypatch):
    """Every test works in a folder of its own, so that nothing is left in the repository or in the home folder."""
    monkeypatch.chdir(tmp_path)
    # Matplotlib keeps its list of fonts, which takes seconds to make
    monkeypatch.setenv("MPLCONFIGDIR", str(MATPLOTLIB))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "user_cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


@pytest.fixture(autouse=True)
def seen_by_caplog(monkeypatch):
    """Lightning decides at its import, by the handlers there are, whether its messages reach caplog."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)


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
