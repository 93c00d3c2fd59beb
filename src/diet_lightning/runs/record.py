"""The ``run.json`` of a run: facts of its data, network and software."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diet_lightning.__about__ import __version__
from diet_lightning.errors import ConfigurationError, first_line
from diet_lightning.utilities.files import read_json, write_json

RECORD = "run.json"


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
        num_samples: N, the number of training samples; None in a supervised run with custom loaders.
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
            "fingerprint": self.fingerprint is None or _is_text(self.fingerprint),
            "input_shape": _is_list(self.input_shape, _is_count),
            "num_classes": self.num_classes is None or _is_count(self.num_classes),
            "class_names": self.class_names is None or _is_list(self.class_names, _is_text),
            "source": self.source is None or _is_text(self.source),
            "backbone": self.backbone is None or _is_text(self.backbone),
            "target": self.target in ("index", "label"),
            "label_smoothing": type(self.label_smoothing) in (int, float) and 0.0 <= self.label_smoothing < 1.0,
            "batch_size": _is_count(self.batch_size),
            "data": self.data is None or type(self.data) is dict,
            "versions": type(self.versions) is dict and _is_list([*self.versions.values()], _is_text),
        }
        for name, is_valid in valid.items():
            if not is_valid:
                raise ValueError(f"{name} is {getattr(self, name)!r}")

    @classmethod
    def read(cls, folder: str | Path) -> RunRecord:
        """Reads the record in a run's folder.

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
            values = read_json(file)
            return cls(**{each.name: values[each.name] for each in fields(cls)})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"'{file}' cannot be read ({type(error).__name__}: {first_line(error)}): restore it, or resume the run for an "
                "epoch, which writes it again."
            ) from error

    def write(self, folder: str | Path) -> None:
        """Writes the record to a run's folder."""
        write_json(Path(folder) / RECORD, asdict(self))


# by type() and not isinstance(), since a bool is an int
def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_list(values: Any, is_valid: Callable[[Any], bool]) -> bool:
    return type(values) in (list, tuple) and all(map(is_valid, values))
