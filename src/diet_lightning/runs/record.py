"""The ``run.json`` of a run: facts of its data, network and software, written when it starts."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diet_lightning.__about__ import __version__
from diet_lightning.errors import ConfigurationError
from diet_lightning.utilities.files import write_json

RECORD = "run.json"
TARGETS = ("index", "label")


def current_versions() -> dict[str, str]:
    """Versions of the packages of a run, read without importing them."""
    return {
        "diet_lightning": __version__,
        "torch": version("torch"),
        "lightning": version("lightning"),
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class RunRecord:
    """Facts of a run that are known when its training starts.

    Attributes:
        num_samples: N, the number of training samples; None in a supervised run with loaders of its own.
        fingerprint: Identifies the training samples and their order; None without a `DIETDataModule`.
        input_shape: Shape of one input of the network, ``(C, H, W)`` for images.
        num_classes: Number of the user's classes; None without labels.
        class_names: Their names; None if unknown.
        source: Source of the data, as for `DIETDataModule`; None for data sets passed in Python.
        backbone: Name of the network; None for a module passed in Python.
        target: ``"index"`` for DIET, ``"label"`` for a supervised run.
        label_smoothing: In ``[0, 1)``.
        batch_size: Samples per optimiser step, of all devices and accumulated batches.
        data: What was read, as `DataSummary.as_dict` gives it; None without a `DIETDataModule`.
        versions: Package → version, of diet_lightning, torch, lightning and python.

    Raises:
        ValueError: If a value is not of these types.
    """

    num_samples: int | None
    fingerprint: str | None
    input_shape: Sequence[int]
    num_classes: int | None
    class_names: Sequence[str] | None
    source: str | None
    backbone: str | None
    target: str
    label_smoothing: float
    batch_size: int
    data: Mapping[str, Any] | None
    versions: Mapping[str, str] = field(default_factory=current_versions)

    def __post_init__(self) -> None:
        valid = {
            "num_samples": self.num_samples is None or _is_count(self.num_samples),
            "fingerprint": self.fingerprint is None or isinstance(self.fingerprint, str),
            "input_shape": _is_list(self.input_shape, _is_count),
            "num_classes": self.num_classes is None or _is_count(self.num_classes),
            "class_names": self.class_names is None or _is_list(self.class_names, _is_text),
            "source": self.source is None or isinstance(self.source, str),
            "backbone": self.backbone is None or isinstance(self.backbone, str),
            "target": self.target in TARGETS,
            "label_smoothing": _is_number(self.label_smoothing) and 0.0 <= self.label_smoothing < 1.0,
            "batch_size": _is_count(self.batch_size),
            "data": self.data is None or isinstance(self.data, dict),
            "versions": isinstance(self.versions, dict) and _is_list(list(self.versions.values()), _is_text),
        }
        for name, is_valid in valid.items():
            if not is_valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}")

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Reads the record of a run.

        Args:
            folder: The run's folder.

        Returns:
            The record.

        Raises:
            ConfigurationError: If the file is missing or damaged.
        """
        file = Path(folder) / RECORD
        if not file.is_file():
            raise ConfigurationError(
                f"Run folder '{folder}' holds no {RECORD}: give the folder of a run of `diet fit`, or of one trained in Python "
                "with the callback RunRecorder."
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            return cls(**{each.name: values[each.name] for each in fields(cls)})
        except (OSError, ValueError, TypeError, KeyError) as error:
            said = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise ConfigurationError(
                f"'{file}' cannot be read ({said}): restore it, or resume the run for an epoch, which writes it again."
            ) from error

    def write(self, folder: str | Path) -> None:
        """Writes the record to a run's folder, atomically.

        Args:
            folder: The run's folder; created if missing.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / RECORD, asdict(self), indent=2)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(values: Any, is_valid: Any) -> bool:
    return isinstance(values, list | tuple) and all(is_valid(value) for value in values)
