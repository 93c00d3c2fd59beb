"""Names of classes: spellings of one name, and their order."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = 5  # names that a sentence lists


def merge_names(counts: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Merges names that differ only in case, in spaces around them, or in how Unicode composes them.

    Args:
        counts: Name → how often it occurs.

    Returns:
        Name → the most frequent spelling of its class, and one sentence if names were merged.
    """
    spellings: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        spellings.setdefault(unicodedata.normalize("NFC", name.strip()).casefold(), []).append(name)
    merged = [f"{' and '.join(map(repr, sorted(names)))}" for names in spellings.values() if len(names) > 1]
    said = f"Class names that differ only in case or spaces are one class: {listed(merged, quote=False)}."
    return {name: names[0] for names in spellings.values() for name in names}, [said] if merged else []


def sort_names(names: Iterable[str]) -> list[str]:
    """Names in alphabetical order, numbers in numerical order."""
    every = sorted(names)
    numbers = [_number(name) for name in every]
    if any(number is None for number in numbers):
        return every
    return sorted(every, key=lambda name: (float(name), name))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def listed(values: Sequence[Any], quote: bool = True) -> str:
    """The first few values, separated by commas."""
    words = [repr(value) if quote else str(value) for value in values[:SHOWN]]
    return ", ".join([*words, "…"] if len(values) > SHOWN else words)
