"""The columns of a table that hold its images and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.split_names import words_of
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.utilities.text import first_few

INPUT_KEYS = ("image", "img", "input", "pixel_values")
LABEL_KEYS = ("label", "labels", "target", "targets", "fine_label", "class", "cls")
PICTURE_KEYS = (*INPUT_KEYS, "picture", "photo", "jpg", "jpeg", "png", "webp")  # the last are those of WebDataset
LABEL_WORDS = frozenset({*LABEL_KEYS, "category", "classes", "categories", "species"})
LISTS = ("List", "LargeList", "Sequence", "list")  # types of features that hold several values
STORED = {"bytes", "path"}  # fields of an image that was written without Hugging Face's features


def choose_columns(features: Mapping[str, Any], read: ReadConfig, owner: str) -> tuple[str, str | None, list[str]]:
    """Finds the columns of the images and of the labels: named so, or else the only ones of their type.

    Args:
        features: Column → feature of Hugging Face, or None if it is not known; columns of nested ones are called
            ``outer.inner``.
        read: Its `image_column` and `label_column` are taken if they are set.
        owner: Name of the table in messages.

    Returns:
        Column of the images, column of the labels or None, and one sentence for each choice among several.

    Raises:
        ConfigurationError: If a column that `read` names does not exist.
        DataError: If no column holds images, or several do and none is named so.
    """
    for argument, column in {"image_column": read.image_column, "label_column": read.label_column}.items():
        if column is not None and column not in features:
            raise ConfigurationError(
                f"Expected argument `read.{argument}` to be one of the columns {list(features)} of {owner}, but got {column!r}."
            )
    notes: list[str] = []
    images = [name for name, kind in features.items() if is_image(kind)]
    named = _named(features, PICTURE_KEYS)
    # a key that only the samples have may hold images too
    image = read.image_column or next((n for n in named if n in images or not images or features[n] is None), None)
    image = image or (images[0] if len(images) == 1 else None)
    if image is None:
        problem = f"several columns of images, {images}" if images else "no column of images"
        lists = [name for name, kind in features.items() if type(kind).__name__ in LISTS]
        cure = f"set `read.image_column` to one of {images}" if images else "set `read.image_column` to one of them"
        if lists and not images:
            cure = f"put one image of each list in {lists} into a column of its own, by map"
        raise DataError(f"{_upper(owner)} has the columns {sorted(features)}, but {problem}: {cure}.")
    _tell("Images are", image, images, "image_column", notes)

    label, others = label_column(features, read.label_column, image)
    if label is not None:
        _tell("Labels are", label, others, "label_column", notes)
    elif others:
        notes.append(f"Columns {others} could be the labels, so none is used; set read.label_column to one of them.")
    elif rest := [name for name, kind in features.items() if name != image and not is_image(kind)]:
        notes.append(
            f"No column is read as labels; if one of {first_few(map(repr, rest))} holds them, set read.label_column to its name."
        )
    return image, label, notes


def label_column(
    features: Mapping[str, Any], given: str | None = None, image: str | None = None
) -> tuple[str | None, list[str]]:
    """The column of the labels, None without one or where several could be it, and all that could.

    Args:
        features: As for `choose_columns`.
        given: The column, if the user has named it.
        image: The column of the images.
    """
    classes = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    named = [name for name in _named(features, LABEL_KEYS) if not is_image(features[name]) and name != image]
    alike = [n for n, kind in features.items() if LABEL_WORDS & {*words_of(n)} and not is_image(kind) and n != image]
    candidates = list(dict.fromkeys([*named, *classes, *alike]))
    if given is not None:
        return given, candidates
    return (candidates[0] if named or len(classes) == 1 else None), candidates


def join_names(
    columns: Mapping[str, Any], names: Mapping[str, Sequence[str] | None]
) -> tuple[dict[str, Any], Sequence[str] | None]:
    """Labels of splits whose features name their classes.

    Args:
        columns: Split → N numbers, None without labels.
        names: Split → names of the numbers, None without names.

    Returns:
        The columns, and the names if all splits have the same; else the names themselves are the labels.
    """
    known = [list(each) for each in names.values() if each is not None]
    if not known or all(each == known[0] for each in known):
        return dict(columns), known[0] if known else None

    def word(own: Sequence[str], n: int | None) -> str | None:
        return None if n is None or n < 0 else own[n]

    joined = dict(columns)
    for split, own in names.items():
        if own is not None and columns[split] is not None:
            joined[split] = [word(own, n) for n in columns[split]]
    return joined, None


def is_image(kind: Any) -> bool:
    """Whether a feature holds images: it is an `Image`, or the fields of one that was written without its type."""
    return type(kind).__name__ == "Image" or (isinstance(kind, Mapping) and set(kind) == STORED)


def _named(features: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Columns that are called by one of the names, in the order of the names; of nested columns the last part counts."""
    called: dict[str, list[str]] = {}
    for column in features:
        called.setdefault(column.rpartition(".")[2].lower(), []).append(column)
    return [column for name in names for column in called.get(name, [])]


def _tell(what: str, chosen: str, candidates: Sequence[str], argument: str, notes: list[str]) -> None:
    others = [name for name in dict.fromkeys(candidates) if name != chosen]
    if others:
        also = ", ".join(map(repr, others))
        notes.append(f"{what} column {chosen!r} (also: {also}); set read.{argument} to choose another.")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
