"""A run's folder: its name and its files."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from diet_lightning.errors import CheckpointError, ConfigurationError

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
CONFIG = "config.yaml"
METRICS = "metrics.csv"


def run_dir_of(checkpoint: str | Path) -> Path:
    """The run folder that a checkpoint lies in: ``RUN/checkpoints/last.ckpt`` → ``RUN``."""
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def find_checkpoint(run: str | Path) -> Path:
    """The checkpoint of a run.

    Args:
        run: A run's folder, or a checkpoint's file.

    Returns:
        ``last.ckpt`` of the run, or its only checkpoint.

    Raises:
        CheckpointError: If there is none, or several without a ``last.ckpt``.
    """
    path = Path(run)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"Run '{run}' does not exist: give the folder of a run, or a .ckpt file.")
    found = sorted([*path.glob(f"{CHECKPOINTS}/*.ckpt"), *path.glob("*.ckpt")])
    last = [file for file in found if file.name == LAST]
    if not found:
        raise CheckpointError(
            f"Run folder '{run}' holds no checkpoint: expected {CHECKPOINTS}/{LAST}; train with `diet fit --run_dir {run}`."
        )
    if not last and len(found) > 1:
        raise CheckpointError(
            f"Run folder '{run}' holds several checkpoints but no {LAST}: name one of {[file.name for file in found]} by its "
            "path."
        )
    return (last or found)[0]


def new_run_dir(source: str, backbone: str) -> Path:
    """A folder name that says when and what: ``runs/20260131-120000-digits-resnet8``."""
    words = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{source.partition(':')[0]}-{backbone}")
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{words}"


def claim_run_dir(folder: Path, resumed: bool) -> None:
    """Makes a run folder; an existing one is used only to go on in it.

    Args:
        folder: The folder.
        resumed: Whether the run goes on from a checkpoint in this folder.

    Raises:
        ConfigurationError: If it holds another run, or cannot be written.
    """
    try:
        if not resumed and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(
                f"Run folder '{folder}' exists and is not empty: choose another `run_dir`, or go on with that run by "
                f"--ckpt_path {folder}/{CHECKPOINTS}/last.ckpt."
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no write permission")
    except OSError as error:
        raise ConfigurationError(
            f"Run folder '{folder}' cannot be written ({error.strerror or error}): choose another `run_dir`."
        ) from error
