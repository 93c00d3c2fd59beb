"""A run's folder: its name, its lock and its files.

- ``config.yaml``: all settings of `diet fit`;
- ``run.json``: facts of data, network and software, see `runs.record`;
- ``metrics.csv``: metrics of steps and epochs, see `runs.metrics`; ``figure.png``: their curves;
- ``checkpoints/last.ckpt``, and ``checkpoints/interrupted.ckpt`` after an interruption, see `training.checkpointed`;
- ``evaluation.json`` and ``figures/``, by `diet test`: scores with intervals, see `runs.scores`, and figures of embeddings;
- ``embeddings.npz``, by `diet predict`; ``audit/``, by `diet audit`; ``export/FORMAT/``, by `diet export`;
- ``.lock``, held by the process that trains.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.utilities.files import require_writable

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
CONFIG = "config.yaml"
METRICS = "metrics.csv"
LOCK = ".lock"
WORKERS_END = 10.0  # seconds; a killed run's loader workers, which inherit its lock, notice within 5


def run_dir_of(checkpoint: str | Path) -> Path:
    """The run folder of a checkpoint: ``RUN/checkpoints/last.ckpt`` → ``RUN``."""
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that `diet fit` saved in a run's folder; empty for a run trained in Python."""
    file = folder / CONFIG
    return (yaml.safe_load(file.read_text()) if file.is_file() else None) or {}


def find_checkpoint(run: str | Path) -> Path:
    """The checkpoint of a run's folder: ``last.ckpt``, or its only one; a checkpoint's file is returned as it is.

    Raises:
        CheckpointError: If the run has no checkpoint, or several without a ``last.ckpt``.
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


def create_run_dir(source: str, backbone: str) -> Path:
    """Creates a folder named by time, source and backbone: ``runs/20260131-120000-digits-resnet8``.

    Runs that start in the same second get ``…-2``, ``…-3`` and so on, since creating a folder succeeds in one process only.

    Raises:
        ConfigurationError: If it cannot be created.
    """
    words = re.sub(r"[^\w-]", "-", f"{source.partition(':')[0]}-{backbone}")
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{words}"
    folder, number = Path("runs", name), 1
    while True:
        with require_writable(f"Run folder '{folder}'", "run_dir"), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        number += 1
        folder = folder.with_name(f"{name}-{number}")


def claim_run_dir(folder: Path, resumed: bool) -> FileLock:
    """Creates a run folder if it is missing, and locks it; it must be empty unless a run in it is `resumed`.

    Returns:
        The lock, held until it is released or the process ends in any way.

    Raises:
        ConfigurationError: If it holds another run, another process uses it, or it cannot be written.
    """
    with require_writable(f"Run folder '{folder}'", "run_dir"):
        if folder.is_file():
            raise ConfigurationError(f"Run folder '{folder}' exists and is a file: choose another `run_dir`.")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no write permission")
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=WORKERS_END)
        except Timeout as error:
            raise ConfigurationError(
                f"Run folder '{folder}' is in use by another running process: wait until it ends, or choose another "
                "`run_dir`."
            ) from error
    if not resumed and any(path.name != LOCK for path in folder.iterdir()):
        lock.release()
        raise ConfigurationError(
            f"Run folder '{folder}' exists and is not empty: choose another `run_dir`, or resume that run by "
            f"--ckpt_path {folder}/{CHECKPOINTS}/{LAST}."
        )
    return lock
