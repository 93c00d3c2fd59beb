"""The ``metrics.csv`` of a run: reading it, and appending to it when a run resumes; names of metrics."""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diet_lightning.errors import ConfigurationError
from diet_lightning.runs.folder import METRICS
from diet_lightning.utilities.files import partial_of

if TYPE_CHECKING:
    from lightning.pytorch.loggers import CSVLogger

# names of metrics: the split, then the quantity
LOSS_GAP = "train/loss_gap"
PROBE = "val/probe_top1"
LINEAR = "test/linear_top1"
RANKME = "val/rankme"
TRAIN_RANKME = "train/rankme"  # of a run without a validation split


def is_accuracy(name: str, splits: tuple[str, ...] = ("val", "test")) -> bool:
    """Whether a metric is a top-1 or top-5 accuracy on one of some splits."""
    split, _, measured = name.partition("/")
    return split in splits and measured.endswith(("_top1", "_top5"))


def run_logger(folder: Path, resumed_at: int | None) -> CSVLogger:
    """Lightning's CSV logger on ``metrics.csv``, which appends to the rows of the steps before a resumption.

    Args:
        folder: The run folder.
        resumed_at: Optimiser steps taken at the checkpoint, None for a new run.

    Returns:
        The logger.
    """
    from lightning.pytorch.loggers import CSVLogger  # here, as reading metrics does not need Lightning

    file = folder / METRICS
    rows: list[dict[str, str]] = []
    names: list[str] = []
    if resumed_at is not None and file.is_file():
        with file.open(newline="") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or [])
            rows = [row for row in reader if int(row["step"]) < resumed_at]
    logger = CSVLogger(folder, name="", version="")
    partial = partial_of(file)
    if names:
        with partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(rows)
    with warnings.catch_warnings():  # Lightning warns that it deletes the metrics of an existing folder, and does so
        warnings.simplefilter("ignore")
        experiment: Any = logger.experiment
    if names:
        partial.replace(file)
        experiment.metrics_keys = names  # so that it appends to them
    return logger


def first_line(error: Exception) -> str:
    """First line of an error's message."""
    return (str(error).splitlines() or [""])[0]


def read_curves(file: Path) -> dict[str, dict[int, float]]:
    """Metric → epochs completed → value, of the finite numbers in a ``metrics.csv``."""
    curves: dict[str, dict[int, float]] = {}
    if not file.is_file():
        return curves
    try:
        with file.open(newline="") as stream:
            rows = list(csv.DictReader(stream, restkey="", restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigurationError(
            f"'{file}' cannot be read ({first_line(error)}): leave the run out, or restore its {METRICS}."
        ) from error
    for row in rows:
        if (epoch := row.pop("epoch", "")).isdecimal():  # other rows are of single steps
            for name, text in row.items():
                if (value := _number(text)) is not None:
                    curves.setdefault(name, {})[int(epoch) + 1] = value
    return curves


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
