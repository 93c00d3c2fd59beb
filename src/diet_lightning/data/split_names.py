"""The names by which splits are known."""

from __future__ import annotations

import re

# the usual names, and Hugging Face's
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
# words beside a split's name that do not change its meaning, also a year as in train2017
_FILLER = r"(?:set|split|data|dataset|images?|imgs?|pictures?|pics|photos?|files?|folder|(?:19|20)\d\d)*"
_SPLIT = re.compile(rf"{_FILLER}({'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))}){_FILLER}")


def split_of(name: str) -> str | None:
    """The split that a folder or file is named after: ``train`` for ``Training_Set``; None for other names.

    Args:
        name: Name of a folder, or value of a column.
    """
    found = _SPLIT.fullmatch(re.sub(r"[\W_]+", "", name.lower()))
    return _SPLIT_OF[found[1]] if found else None


def hinted_split(name: str) -> str | None:
    """The only split of which a name contains a word: ``test`` for ``seg_test`` and ``testA``; None without one.

    Args:
        name: Name of a folder.
    """
    found = {_SPLIT_OF[word] for word in words_of(name) if word in _SPLIT_OF}
    return split_of(name) or (found.pop() if len(found) == 1 else None)


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: ``test`` and ``a`` of ``testA`` and of ``test_a2``."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
