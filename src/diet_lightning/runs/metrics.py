"""The ``metrics.csv`` of a run: reading it, and appending to it when a run resumes; names of metrics."""

from __future__ import annotations

import csv
import math
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diet_lightning.errors import ConfigurationError, first_line
from diet_lightning.runs.folder import METRICS

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
    """Lightning's CSV logger on the ``metrics.csv`` in a run's folder, whose rows before the step `resumed_at` are kept, if any."""
    from lightning.pytorch.loggers import CSVLogger  # here, as reading metrics does not need Lightning

    rows = [] if resumed_at is None else _read_rows(folder, resumed_at)
    logger = CSVLogger(folder, name="", version="")
    with warnings.catch_warnings():  # Lightning warns that it deletes the metrics of an existing folder, and does so
        warnings.simplefilter("ignore")
        for row in rows:
            values: dict[str, Any] = {name: text for name, text in row.items() if text}
            logger.log_metrics(values, int(row["step"]))
        logger.save()
    return logger


def read_curves(folder: Path, end_step: int | None = None) -> dict[str, dict[int, float]]:
    """Reads the metrics of whole epochs, up to a step, from the ``metrics.csv`` in a run's folder.

    Returns:
        Metric → epochs completed → value, of the finite numbers; empty without a file.

    Raises:
        ConfigurationError: If the file is damaged.
    """
    curves: dict[str, dict[int, float]] = {}
    for row in _read_rows(folder, end_step):
        if (epoch := row.pop("epoch", "")).isdecimal():  # other rows are of single steps
            for name, text in row.items():
                with suppress(TypeError, ValueError):  # of an empty cell, or of cells beyond the header's
                    if math.isfinite(value := float(text)):
                        curves.setdefault(name, {})[int(epoch) + 1] = value
    return curves


def _read_rows(folder: Path, end_step: int | None) -> list[dict[str, str]]:
    file = folder / METRICS
    if not file.is_file():
        return []
    try:
        with file.open(newline="") as stream:
            rows = csv.DictReader(stream, restkey="", restval="")
            return [row for row in rows if end_step is None or int(row["step"]) < end_step]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ConfigurationError(
            f"'{file}' cannot be read ({first_line(error)}): leave the run out, or restore its {METRICS}."
        ) from error
