"""What a source gives: its splits, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diet_lightning.data.dataset import SampleDataset


@dataclass(frozen=True)
class Source:
    """The splits behind a name.

    Attributes:
        train: What DIET trains on; its length is N.
        val: What online probes are measured on, or None.
        test: What is left for the end, or None.
        class_names: Names of the labels, or None.
        augmentation: The source's own arguments of `BatchAugmentation`, in place of the paper's.
    """

    train: SampleDataset
    val: SampleDataset | None = None
    test: SampleDataset | None = None
    class_names: Sequence[str] | None = None
    augmentation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read (see `DIETDataModule`)."""

    root: str | None = None
    image_size: int | None = None
    holdout: float = 0.1
    download: bool = False
    seed: int = 0
