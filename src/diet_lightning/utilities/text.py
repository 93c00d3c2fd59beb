"""Text for terminals, pages and figures."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5  # words that are listed


def printable(text: str) -> str:
    """A text with escapes for control characters and for bytes outside the encoding, which names of files may have."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def decodable(text: str) -> str:
    """A text with those bytes of a file's name escaped that are outside the encoding."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def first_few(words: Iterable[str], count: int | None = None, limit: int = SHOWN) -> str:
    """The first few words, separated by commas, and a mark where there are more.

    Args:
        words: The words, or the first of them.
        count: Number of all words; None for those given.
        limit: Number of words that are listed.

    Example:
        >>> first_few(["a", "b"]), first_few(["a", "b"], 7)
        ('a, b', 'a, b, …')
    """
    found = list(words)
    return ", ".join([*found[:limit], *(["…"] if (count or len(found)) > limit else [])])
