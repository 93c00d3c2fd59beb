"""Names of classes: spellings of one name, and their order."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from diet_lightning.utilities.text import first_few


def merge_names(*splits: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Merges names that differ only in case, in spaces around them, or in how Unicode composes them.

    Args:
        *splits: Of each split, the training split first: name → how often it occurs.

    Returns:
        Name → the spelling of its class, the most frequent one of the first split that has it; and sentences on names that
        were merged, and on other names that are similar.
    """
    ordered = dict.fromkeys(name for split in splits for name in sorted(split, key=lambda name: (-split[name], name)))
    spellings = _grouped(ordered, _folded)
    merged = _alike(spellings)
    notes = [f"Class names that differ only in case or spaces are one class: {first_few(merged)}."] if merged else []
    name_of = {name: names[0] for names in spellings.values() for name in names}
    if similar := _alike(_grouped(sorted(set(name_of.values())), _letters)):
        notes.append(
            f"Classes with similar names are different classes: {first_few(similar)}; rename them if they are the same."
        )
    return name_of, notes


def unseen_notes(names: Mapping[str, Collection[str]]) -> list[str]:
    """A sentence for each split with classes that no training sample has.

    Args:
        names: Split → names of the classes that occur.
    """
    trained = set(names.get("train", ()))
    unseen = {split: sort_names(set(found) - trained) for split, found in names.items()} if trained else {}
    return [
        f"{len(extra)} class(es) of the {split} split have no training sample: {first_few(map(repr, extra))}."
        for split, extra in unseen.items()
        if extra
    ]


def sort_names(names: Iterable[str]) -> list[str]:
    """Names in alphabetical order, numbers in numerical order."""
    every = sorted(names)
    numbers = {name: number_of(name) for name in every}
    return every if None in numbers.values() else sorted(every, key=lambda name: numbers[name] or 0)


def class_name(label: int, names: Sequence[str] | None) -> str:
    """The name of a class, its number if it has none; empty for -1, a sample without a label."""
    if label < 0:
        return ""
    return str(names[label]) if names is not None and label < len(names) else str(label)


def number_of(text: str) -> float | None:
    """The finite number that a text spells, an `int` if it is written as one; None for other texts."""
    try:
        value = int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _letters(name: str) -> str:
    """The name without case and punctuation, of numbers the whole."""
    return name if number_of(name) is not None else re.sub(r"[\W_]+", "", _folded(name)) or name


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _alike(groups: Mapping[str, list[str]]) -> list[str]:
    return [" and ".join(map(repr, sorted(names))) for names in groups.values() if len(names) > 1]
