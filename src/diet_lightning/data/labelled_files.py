"""Files with a class each, and the numbers that classes get over all splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.class_names import merge_names, unseen_notes
from diet_lightning.data.labels import EncodedLabels


@dataclass(frozen=True)
class LabelledFiles:
    """The files of a split, each with its class.

    Attributes:
        paths: The files.
        classes: Number of each file's class in `names`, -1 for a file without one, shape ``(N,)``.
        names: Names of the classes; each has at least one file.
        stamps: Size and times of each file, shape ``(N, 3)``; None if they have not been read.
    """

    paths: list[str]
    classes: NDArray[np.int64]
    names: list[str]
    stamps: NDArray[np.int64] | None = None

    def at(self, rows: NDArray[np.int64]) -> LabelledFiles:
        """The files at some positions, with the same classes."""
        paths = [self.paths[n] for n in rows.tolist()]
        stamps = None if self.stamps is None else self.stamps[rows]
        return replace(self, paths=paths, classes=self.classes[rows], stamps=stamps)

    @classmethod
    def from_names(cls, paths: list[str], names: Sequence[str | None]) -> LabelledFiles:
        """Files with the name of each one's class, None for a file without one."""
        known = sorted({name for name in names if name is not None})
        number: dict[str | None, int] = {name: n for n, name in enumerate(known)}
        return cls(paths, np.array([number.get(name, NO_LABEL) for name in names], dtype=np.int64), known)

    @property
    def counts(self) -> dict[str, int]:
        """Name → number of files."""
        counts = np.bincount(self.classes[self.classes != NO_LABEL], minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))


def number_classes(splits: Mapping[str, LabelledFiles]) -> EncodedLabels:
    """Numbers the classes of all splits together, in alphabetical order.

    Args:
        splits: Split → files; ``train`` comes first.
    """
    name_of, notes = merge_names(*(files.counts for files in splits.values()))
    names = sorted(set(name_of.values()))
    number = {name: n for n, name in enumerate(names)}
    labels: dict[str, Tensor | None] = {}
    for split, files in splits.items():
        # the last entry is the label of files without a class
        numbers = np.array([*(number[name_of[name]] for name in files.names), NO_LABEL], dtype=np.int64)
        labels[split] = torch.from_numpy(numbers[files.classes])
    notes += unseen_notes({split: {name_of[name] for name in files.names} for split, files in splits.items()})
    return EncodedLabels(labels, names or None, notes)
