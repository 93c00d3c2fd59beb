"""SplitSummary: how many samples and classes a split has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.class_names import class_name
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.utilities.text import SHOWN, first_few


@dataclass(frozen=True)
class SplitSummary:
    """Samples and classes of a split.

    Attributes:
        num_samples: Number of samples.
        also: The missing split that this one replaces; None if there is none.
        num_unlabelled: Number of samples without a label; None if the data set does not list its labels.
        num_classes: Number of classes that occur; None without labels.
        class_sizes: Smallest and largest number of samples of a class.
        first_classes: Name and number of samples of the first few classes.
        single_classes: Names of the classes with one sample.
    """

    num_samples: int
    also: str | None
    num_unlabelled: int | None
    num_classes: int | None
    class_sizes: list[int]
    first_classes: list[list[Any]]
    single_classes: list[str]

    @classmethod
    def of(cls, split: IndexedDataset, also: str | None, class_names: Sequence[str] | None) -> SplitSummary:
        """Counts the labels of a split.

        Args:
            split: The split.
            also: The missing split that it replaces, or None.
            class_names: Names of the labels, or None.
        """
        labels = split.dataset.labels
        if labels is None:
            return cls(len(split), also, None, None, [], [], [])
        found, counts = torch.unique(labels[labels != NO_LABEL], return_counts=True)
        sizes = [
            [class_name(label, class_names), count]
            for label, count in zip(found.tolist(), counts.tolist(), strict=True)
        ]
        return cls(
            len(split),
            also,
            int((labels == NO_LABEL).sum()),
            len(sizes) or None,
            [int(counts.min()), int(counts.max())] if sizes else [],
            sizes[:SHOWN],
            [name for name, count in sizes if count == 1],
        )

    def text(self) -> str:
        """One line."""
        words = f"{self.num_samples:,} sample{'s' * (self.num_samples != 1)}"
        if self.num_classes:
            low, high = self.class_sizes
            shown = first_few([f"{name} ({count:,})" for name, count in self.first_classes], self.num_classes)
            spread = f" of {low:,}–{high:,}" if self.num_classes > SHOWN and low < high else ""
            words += f", {self.num_classes:,} class{'es' * (self.num_classes > 1)}{spread}: {shown}"
            words += f"; {self.num_unlabelled:,} without a label" if self.num_unlabelled else ""
        elif self.num_unlabelled:
            words += " without labels"
        return words + (f"; also used as {self.also}" if self.also else "")

    def single_class_notes(self) -> list[str]:
        """A sentence on the classes with one sample, if there are any."""
        names = self.single_classes
        if not names:
            return []
        shown = first_few(map(repr, names))
        if len(names) == 1:
            return [f"Class {shown} has a single training sample: check that it is a class."]
        found = f"{len(names):,} of {self.num_classes:,} classes have a single training sample"
        return [f"{found}: check that they are classes ({shown})."]
