"""Writes the results of a numbered example beside its figures; `docs/results.md` is made from these files."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning
import numpy as np
import torch
import torchvision
from scipy.stats import t as student_t

SIZE = os.environ.get("DIET_SIZE", "small")  # tiny: only to see it run; small: two CPU cores; full: as in the paper
if SIZE not in ("tiny", "small", "full"):
    sys.exit(f"Expected environment variable DIET_SIZE to be 'tiny', 'small' or 'full', but got {SIZE!r}.")
STARTED = time.time()


@dataclass(frozen=True)
class Row:
    """One measured number."""

    what: str  # the quantity, with its setting where the example has several
    value: float
    low: float | None = None  # of its 95 % interval
    high: float | None = None
    seeds: int = 1
    unit: str = ""  # "%", "nats", or nothing
    paper: str = ""  # the paper's value in its own setting, if known


def over_seeds(what: str, values: Sequence[float], unit: str = "", paper: str = "") -> Row:
    """The mean over seeds with its 95 % interval (Student's t), of one value a seed."""
    mean, low, high = float(np.mean(values)), None, None
    if len(values) > 1:
        half = float(student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
        low, high = mean - half, mean + half
    return Row(what, mean, low, high, len(values), unit, paper)


def record(run_dir: str, setting: str, rows: Sequence[Row], minutes: float | None = None) -> Path:
    """Writes ``results.json`` into the folder of a run, named like its example: rows, setting, command, hardware, versions, time.

    `minutes` is for runs that were not all made by this process.
    """
    options = {name: value for name, value in sorted(os.environ.items()) if name.startswith("DIET_")}
    words = [
        *(f"{name}={value}" for name, value in options.items()),
        "python",
        f"examples/paper/{Path(run_dir).name}.py",
    ]
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    found = {
        "setting": setting,
        "command": " ".join(words),
        "hardware": f"{cpu}, threads: {torch.get_num_threads()}, {gpu}",
        "versions": {each.__name__: each.__version__ for each in (torch, torchvision, lightning)},
        "minutes": round((time.time() - STARTED) / 60 if minutes is None else minutes, 1),
        "rows": [asdict(row) for row in rows],
    }
    path = Path(run_dir) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []
