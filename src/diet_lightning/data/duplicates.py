"""Samples of exactly the same content, within the training set and between the splits; `audit.near_duplicates` finds others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SPLITS = {"val": "validation", "test": "test"}  # in sentences


def shared_content(train: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """Number of samples of a split whose content is also in the training set.

    Args:
        train: Digests of the training samples, shape ``(N, 16)``; zero for samples without digest.
        other: Digests of the split's samples, shape ``(M, 16)``.
    """
    return int(np.isin(_numbers(other), _numbers(train)).sum())


def repeated_content(train: NDArray[np.uint8]) -> int:
    """Number of training samples whose content an earlier one has.

    Args:
        train: Digests of the training samples, shape ``(N, 16)``; zero for samples without digest.
    """
    numbers = _numbers(train)
    return len(numbers) - len(np.unique(numbers))


def duplicate_notes(digests: Mapping[str, NDArray[np.uint8] | None]) -> list[str]:
    """One sentence for each kind of duplicates that is found.

    Args:
        digests: Name of a split → digests of its samples, or None if they are not known.
    """
    train = digests["train"]
    if train is None:
        return []
    notes = []
    if repeated := repeated_content(train):
        notes.append(
            f"{repeated} of the {len(train)} training samples {'repeats' if repeated == 1 else 'repeat'} the content of "
            "another one: DIET trains to distinguish them although they are the same; delete the copies to have each once."
        )
    for split, name in SPLITS.items():
        other = digests.get(split)
        if other is not None and (shared := shared_content(train, other)):
            notes.append(
                f"{shared} of the {len(other)} {name} samples {'is' if shared == 1 else 'are'} also in the training set (same "
                "content): this flatters the scores on that split; delete them from one of the two."
            )
    return notes


def _numbers(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 8 bytes of each digest, which suffice to count, of the samples that have one."""
    known = np.ascontiguousarray(digests[digests.any(axis=1)])
    return known.view(np.uint64)[:, 0] if len(known) else np.empty(0, np.uint64)
