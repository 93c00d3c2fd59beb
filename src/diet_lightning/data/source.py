"""The splits of a source, and the options with which a source is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.read_config import ReadConfig


@dataclass(frozen=True)
class Source:
    """The splits of a source.

    Attributes:
        train: The training split; its length is N.
        val: The validation split, on which online probes are measured, or None.
        test: The test split, or None.
        class_names: Names of the labels, or None.
        augmentation: Arguments of `BatchAugmentation` that replace the paper's.
        notes: One sentence for each decision on what the data mean, and for all that was left out.
    """

    train: SampleDataset
    val: SampleDataset | None = None
    test: SampleDataset | None = None
    class_names: Sequence[str] | None = None
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SourceOptions:
    """Options with which a source is read, see `DIETDataModule`."""

    root: str | None = None
    image_size: int | None = None
    holdout: float = 0.1
    download: bool = False
    seed: int = 0
    read: ReadConfig = field(default_factory=ReadConfig)
