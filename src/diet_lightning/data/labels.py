"""Labels of any kind → int64 classes, -1 for samples without one, encoded over all splits together."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.class_names import class_name, merge_names, sort_names, unseen_notes
from diet_lightning.errors import DataError
from diet_lightning.utilities.text import first_few

OFF = "the probe and the evaluation are off"


@dataclass(frozen=True)
class EncodedLabels:
    """Labels of all splits, numbered alike.

    Attributes:
        labels: Split → int64, shape ``(N,)``, -1 for samples without a label; None for all splits where there are no labels
            or where they are not classes.
        class_names: Names of the classes; None if they have none.
        notes: One sentence for each decision.
    """

    labels: dict[str, Tensor | None]
    class_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def encode_labels(columns: Mapping[str, Any], class_names: Sequence[str] | None = None) -> EncodedLabels:
    """Reads label columns of any kind.

    Integers, whole floats, booleans and one-hot rows are classes 0 … C-1; larger numbers, such as identifiers, are numbered
    in ascending order; text is numbered in alphabetical order, numbers as text in numerical order. Negative numbers, None,
    NaN and empty text are missing labels. Targets of another kind, such as several labels of one sample or fractions, give
    no labels.

    Args:
        columns: Split → N labels, as a sequence, array or tensor; None for a split without labels.
        class_names: Names of the classes, if they are known: label n is the n-th.

    Returns:
        The labels.

    Raises:
        DataError: If a label is not among `class_names`, with the split and the sample.
    """
    values = {split: _plain_column(column) for split, column in columns.items() if column is not None}
    notes: list[str] = []
    if not values:
        return EncodedLabels(dict.fromkeys(columns), None if class_names is None else list(class_names))
    try:
        classes = _as_scalars(values, notes)
        if not any(value is not None for column in classes.values() for value in column):
            return _finish(columns, classes, class_names, notes)
        if any(isinstance(value, str) for column in classes.values() for value in column):
            return _finish(columns, *_number_text(classes, class_names, notes), notes)
        return _finish(columns, *_number_integers(classes, class_names, notes), notes)
    except _NotClasses as error:
        return EncodedLabels(dict.fromkeys(columns), None, [f"{error}: {OFF}."])


class _NotClasses(Exception):
    """The labels are targets of another kind; the message is the start of the sentence that says so."""


def _finish(
    columns: Mapping[str, Any],
    numbered: Mapping[str, list[int | None]],
    names: Sequence[str] | None,
    notes: list[str],
) -> EncodedLabels:
    labels: dict[str, Tensor | None] = {
        split: None
        if column is None
        else torch.tensor([NO_LABEL if value is None else value for value in numbered[split]], dtype=torch.int64)
        for split, column in columns.items()
    }
    seen = {split: set(each.tolist()) - {NO_LABEL} for split, each in labels.items() if each is not None}
    notes += unseen_notes({split: [class_name(n, names) for n in found] for split, found in seen.items()})
    return EncodedLabels(labels, None if names is None else list(names), notes)


# -- values ------------------------------------------------------------------------------------------------------------


def plain_label(value: Any) -> Any:
    """A label as a plain value: int, float, str, None, or a tuple of several; any other object unchanged."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return plain_label(value[0]) if len(value) == 1 else tuple(map(plain_label, value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas'
        return None
    return int(value) if isinstance(value, bool) else value


def _plain_column(column: Any) -> list[Any] | NDArray[Any]:
    """Plain values, one per sample; rows of several numbers as an array ``(N, ...)``."""
    if isinstance(column, Tensor):
        column = column.detach().cpu()
        column = column.float().numpy() if column.dtype == torch.bfloat16 else column.numpy()
    if isinstance(column, np.ndarray):
        if column.ndim > 1 and column.size != len(column):
            return column
        if column.dtype.kind in "iu":
            plain: list[Any] = column.reshape(-1).tolist()
            return plain
        column = column.reshape(-1)
    return [plain_label(value) for value in column]


def is_missing(value: Any) -> bool:
    """Whether a plain value is a missing label: None, NaN, a negative integer, or text that is empty or says so."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan") or re.fullmatch(r"\s*-\d+\s*", value) is not None
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, int) and value < 0)


def _as_scalars(values: Mapping[str, list[Any] | NDArray[Any]], notes: list[str]) -> dict[str, list[Any]]:
    """One int, str or None per sample.

    Raises:
        _NotClasses: For targets of another kind.
    """
    rows = {split: found for split, column in values.items() if (found := _rows(column)) is not None}
    if rows:
        if len(rows) < len(values):
            raise _NotClasses("Labels are single values in one split and several per sample in another")
        return _from_one_hot(rows, notes)
    classes = {}
    replaced: Counter[str] = Counter()
    for split, column in values.items():
        classes[split] = [_scalar(value, replaced) for value in column]
    is_float = any(isinstance(value, float) and not math.isnan(value) for column in values.values() for value in column)
    everything = {value for column in classes.values() for value in column}
    if is_float and not any(isinstance(value, str) for value in everything):
        notes.append("Labels are numbers without fractions: they are read as integers.")
    if replaced.keys() - {"-1", "None"}:
        count = sum(number for word, number in replaced.items() if word not in ("-1", "None"))
        words = first_few([word for word in replaced if word not in ("-1", "None")])
        notes.append(f"{count} label(s) are {words}: they count as missing, as -1 does.")
    elif "-1" in replaced and everything == {1, None}:
        notes.append("Labels are -1 and 1: -1 counts as missing; store 0 and 1 for two classes.")
    return classes


def _scalar(value: Any, replaced: Counter[str]) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if is_missing(value):
        replaced[f"{value!r}" if isinstance(value, str) else "NaN" if isinstance(value, float) else str(value)] += 1
        return None
    if isinstance(value, float):
        raise _NotClasses(f"Labels with fractions, such as {value:.6g}, are a target of regression")
    if not isinstance(value, int | str):
        raise _NotClasses(f"Labels of type {type(value).__name__} are not classes")
    return value


def _rows(column: list[Any] | NDArray[Any]) -> NDArray[Any] | None:
    """Rows of several values, ``(N, k)`` of floats, NaN where one is missing; None for a column of single values.

    Raises:
        _NotClasses: If rows have several lengths, or values that are not numbers.
    """
    if isinstance(column, np.ndarray):
        if column.ndim != 2 or column.dtype.kind not in "iufb":
            raise _NotClasses(f"Labels of shape (N, {', '.join(map(str, column.shape[1:]))}) are not classes")
        return column
    lengths = {len(value) for value in column if isinstance(value, tuple)}
    if not lengths:
        return None
    if len(lengths) > 1 or not all(isinstance(value, tuple) or value is None for value in column):
        raise _NotClasses("Labels that are lists of different lengths are multi-label")
    empty = (math.nan,) * (width := lengths.pop())
    try:
        rows = np.array([empty if value is None else value for value in column], np.float64)
    except (TypeError, ValueError) as error:
        raise _NotClasses(f"Labels that are lists of {width} values are not classes") from error
    return rows if rows.ndim == 2 else _rows(rows)


def _from_one_hot(rows: Mapping[str, NDArray[Any]], notes: list[str]) -> dict[str, list[Any]]:
    widths = {each.shape[1] for each in rows.values()}
    shown = " and ".join(f"(N, {width})" for width in sorted(widths))
    if len(widths) > 1:
        raise _NotClasses(f"Labels of shapes {shown} differ between the splits")
    classes: dict[str, list[Any]] = {}
    for split, each in rows.items():
        known = ~np.isnan(each).any(axis=1)
        if not np.isin(each[known], (0, 1)).all():
            raise _NotClasses(f"Labels of shape {shown} are several values per sample")
        if not (each[known].sum(axis=1) == 1).all():
            raise _NotClasses(f"Labels of shape {shown} are multi-label")
        found = each.argmax(axis=1).tolist()
        classes[split] = [value if is_known else None for value, is_known in zip(found, known.tolist(), strict=True)]
    notes.append(f"Labels of shape {shown} are one-hot: the position of the 1 is the class.")
    return classes


# -- numbers -----------------------------------------------------------------------------------------------------------


def _number_integers(
    classes: dict[str, list[Any]], names: Sequence[str] | None, notes: list[str]
) -> tuple[dict[str, list[Any]], Sequence[str] | None]:
    if names is not None:
        _check_named(classes, len(names))
        return classes, names
    distinct = sorted({value for column in classes.values() for value in column if value is not None})
    if distinct[-1] + 1 <= 2 * len(distinct) + 10:
        return classes, None
    notes.append(
        f"Labels from {distinct[0]} to {distinct[-1]} are numbered 0 to {len(distinct) - 1} in ascending order."
    )
    return _numbered(classes, {value: n for n, value in enumerate(distinct)}), [str(value) for value in distinct]


def _check_named(classes: Mapping[str, list[Any]], count: int) -> None:
    for split, column in classes.items():
        for sample, value in enumerate(column):
            if value is not None and value >= count:
                raise DataError(
                    f"Label {value} of {split} sample {sample} has no class name: there are {count}, of the labels 0 … "
                    f"{count - 1}; correct the label, or give a name for every class."
                )


def _numbered(classes: Mapping[str, list[Any]], number: Mapping[Any, int]) -> dict[str, list[Any]]:
    return {split: [None if v is None else number[v] for v in column] for split, column in classes.items()}


# -- text --------------------------------------------------------------------------------------------------------------


def _number_text(
    classes: dict[str, list[Any]], names: Sequence[str] | None, notes: list[str]
) -> tuple[dict[str, list[Any]], Sequence[str]]:
    text = {split: [None if value is None else str(value) for value in column] for split, column in classes.items()}
    if names is not None:
        return _by_name(text, [str(name) for name in names]), names
    name_of, merged = merge_names(
        *(Counter(value for value in column if value is not None) for column in text.values())
    )
    notes += merged
    ordered = sort_names(set(name_of.values()))
    notes.append(f"Labels are text: {len(ordered)} class(es), {first_few(map(repr, ordered))}, numbered in this order.")
    number = {name: n for n, name in enumerate(ordered)}
    return _numbered(text, {value: number[name] for value, name in name_of.items()}), ordered


def _by_name(text: Mapping[str, list[str | None]], names: list[str]) -> dict[str, list[Any]]:
    """The position of each text among given names, or the number that it spells."""
    known = {str(n): n for n in range(len(names))} | {name: n for n, name in enumerate(names)}
    for split, column in text.items():
        for sample, value in enumerate(column):
            if value is not None and value not in known:
                raise DataError(
                    f"Label {value!r} of {split} sample {sample} is not among the class names {first_few(map(repr, names))}: correct the "
                    "label, or give a name for every class."
                )
    return _numbered(text, known)
