"""Files with a class each, and the numbers that classes get over all splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diet_lightning.data.batch import NO_LABEL

SHOWN_NAMES = 5


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
        return replace(
            self, paths=paths, classes=self.classes[rows], stamps=None if self.stamps is None else self.stamps[rows]
        )

    @classmethod
    def from_names(cls, paths: list[str], names: Sequence[str | None]) -> LabelledFiles:
        """Files with the name of each one's class, None for a file without one."""
        known = sorted({name for name in names if name is not None})
        number: dict[str | None, int] = {name: n for n, name in enumerate(known)}
        return cls(paths, np.array([number.get(name, NO_LABEL) for name in names], dtype=np.int64), known)


@dataclass(frozen=True)
class NumberedClasses:
    """Labels of the files of all splits.

    Attributes:
        labels: Split → labels, -1 for files without one, int64, shape ``(N,)``.
        names: Names of the labels, sorted; empty without labels.
        notes: Sentences on merged, similar and rare classes.
    """

    labels: dict[str, NDArray[np.int64]]
    names: list[str]
    notes: list[str]


def number_classes(splits: Mapping[str, LabelledFiles], by_number: bool = False) -> NumberedClasses:
    """Numbers the classes of all splits together, in the order of their names.

    A class of a later split is merged with the only class of the splits before it whose name differs in case alone.

    Args:
        splits: Split → files; ``train`` comes first.
        by_number: Whether the names are integers, to be sorted as such.
    """
    known: set[str] = set()
    name_of: dict[str, list[str]] = {}
    merged: list[str] = []
    for split, files in splits.items():
        alike = _grouped(known, _folded)
        name_of[split] = [_same_name(name, known, alike) for name in files.names]
        pairs = zip(files.names, name_of[split], strict=True)
        merged += [f"{new!r} of {split} with {old!r}" for new, old in pairs if new != old]
        known = known.union(name_of[split])
    names = sorted(known, key=int) if by_number else sorted(known)
    number = {name: n for n, name in enumerate(names)}
    labels = {}
    for split, files in splits.items():
        # the last entry is the label of files without a class
        labels[split] = np.array([*(number[name] for name in name_of[split]), NO_LABEL], dtype=np.int64)[files.classes]
    notes = []
    if merged:
        notes.append(
            f"Merged classes whose names differ in case alone: {shown(merged)}; rename them to keep them apart."
        )
    notes += _similar(names) + _unknown_in_training(name_of)
    return NumberedClasses(labels, names, notes)


def shown(texts: Sequence[str]) -> str:
    """The first few of many names, between commas."""
    return ", ".join(texts[:SHOWN_NAMES]) + (", …" if len(texts) > SHOWN_NAMES else "")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _same_name(name: str, known: set[str], alike: Mapping[str, list[str]]) -> str:
    """The only known name that differs in case alone, else the name itself."""
    others = alike.get(_folded(name), [])
    return others[0] if name not in known and len(others) == 1 else name


def _similar(names: list[str]) -> list[str]:
    groups = _grouped(names, lambda name: re.sub(r"[\W_]+", "", _folded(name)) or name)
    alike = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    if not alike:
        return []
    return [f"Classes with similar names are different classes: {shown(alike)}; rename them if they are the same."]


def _unknown_in_training(name_of: Mapping[str, list[str]]) -> list[str]:
    train = set(name_of["train"])
    if not train:
        return []
    notes = []
    for split, names in name_of.items():
        unknown = sorted(set(names) - train)
        if unknown:
            notes.append(
                f"The {split} split has {len(unknown):,} class(es) that the training split does not have: {shown(unknown)}; "
                "check the spelling of the names."
            )
    return notes
