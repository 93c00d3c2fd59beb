"""Label columns of every kind become classes, and each decision is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_lightning.data.class_names import merge_names, sort_names
from diet_lightning.data.labels import encode_labels
from diet_lightning.errors import DataError

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def encoded(column, names=None):
    """Labels of one training split, their names, and the notes as one text."""
    found = encode_labels({"train": column}, names)
    labels = found.labels["train"]
    return None if labels is None else labels.tolist(), found.class_names, " ".join(found.notes)


@pytest.mark.parametrize(
    "column",
    [
        [0, 1, 2, 1],
        np.array([0, 1, 2, 1], np.uint8),
        np.array([[0], [1], [2], [1]]),
        np.array([0, 1, 2, 1], ">i4"),
        torch.tensor([0, 1, 2, 1], dtype=torch.int16),
        [np.int64(0), torch.tensor(1), 2, np.array([1])],
        [[0], (1,), [[2]], 1],
    ],
    ids=["list", "array", "column", "big endian", "tensor", "mixed", "lists of one"],
)
def test_small_integers_are_classes_and_nothing_is_said(column):
    assert encoded(column) == ([0, 1, 2, 1], None, "")
    assert encode_labels({"train": column}).labels["train"].dtype == torch.int64


@pytest.mark.parametrize(
    ("column", "labels", "said"),
    [
        ([0, -1, 1, None], [0, -1, 1, -1], ""),
        ([0, -100, 1, -100], [0, -1, 1, -1], "2 label(s) are -100: they count as missing"),
        ([3, -7, -9, 1], [3, -1, -1, 1], "2 label(s) are -7, -9: they count as missing"),
        ([0.0, math.nan, 2.0], [0, -1, 2], "1 label(s) are NaN"),
        (np.array([0, np.nan, 2], np.float32), [0, -1, 2], "without fractions: they are read as integers"),
        ([True, False, None], [1, 0, -1], ""),
        (np.array([True, False]), [1, 0], ""),
        ([1, -1, -1, 1], [1, -1, -1, 1], "-1 counts as missing; store 0 and 1 for two classes"),
        ([None, None], [-1, -1], ""),
    ],
)
def test_missing_labels(column, labels, said):
    found, names, notes = encoded(column)
    assert (found, names) == (labels, None)
    assert said in notes
    assert bool(notes) == bool(said)


@pytest.mark.parametrize(
    ("column", "labels", "names"),
    [
        ([10**9, 5, 5, 70], [2, 0, 0, 1], ["5", "70", "1000000000"]),
        ([1001.0, 1000.0], [1, 0], ["1000", "1001"]),
        ([10**30, 3, 2**70], [2, 0, 1], ["3", str(2**70), str(10**30)]),
        (np.array([2**63, 7], np.uint64), [1, 0], ["7", str(2**63)]),
    ],
)
def test_identifiers_are_numbered_in_ascending_order(column, labels, names):
    found, classes, notes = encoded(column)
    assert (found, classes) == (labels, names)
    assert f"Labels from {names[0]} to {names[-1]} are numbered 0 to {len(names) - 1} in ascending order." in notes


@pytest.mark.parametrize("highest", [13, 14])
def test_gaps_up_to_a_bound_are_no_identifiers(highest):
    labels, names, _ = encoded([0, highest])  # 2 · 2 + 10 = 14 classes at most
    assert (labels, names) == (([0, 13], None) if highest == 13 else ([0, 1], ["0", "14"]))


@pytest.mark.parametrize(
    ("column", "labels", "names"),
    [
        (["dog", "cat", "dog"], [1, 0, 1], ["cat", "dog"]),
        (np.array(["b", "a"]), [1, 0], ["a", "b"]),
        (np.array([b"b", b"a"]), [1, 0], ["a", "b"]),
        (["10", "9", "0"], [2, 1, 0], ["0", "9", "10"]),
        (["0.5", "-2.5", "10"], [1, 0, 2], ["-2.5", "0.5", "10"]),
        (["b", "", None, "a", " nan "], [1, -1, -1, 0, -1], ["a", "b"]),
        (["1", "-100", "0"], [1, -1, 0], ["0", "1"]),
        (["x", 3, 3.0], [1, 0, 0], ["3", "x"]),
        ([["x"], ["y"]], [0, 1], ["x", "y"]),
    ],
)
def test_text_is_numbered_by_name(column, labels, names):
    found, classes, notes = encoded(column)
    assert (found, classes) == (labels, names)
    assert f"Labels are text: {len(names)} class(es)" in notes


def test_names_that_differ_only_in_case_or_form_are_one_class():
    labels, names, notes = encoded(["Cat", "cat", "cat", " dog", "dog", "Éclair", "E\u0301clair"])
    assert labels[:3] == [labels[0]] * 3
    assert labels[3] == labels[4]
    assert labels[5] == labels[6]
    assert (len(names), names[labels[0]]) == (3, "cat")  # the most frequent spelling
    assert "'Cat' and 'cat'" in notes
    assert "are one class" in notes


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (np.eye(3, dtype=np.uint8)[[2, 0, 1]], [2, 0, 1]),
        (torch.eye(4)[[3, 3]], [3, 3]),
        ([[0, 1], [1, 0], None], [1, 0, -1]),
        (np.eye(2, dtype=bool), [0, 1]),
    ],
)
def test_one_hot_rows(column, labels):
    found, names, notes = encoded(column)
    assert (found, names) == (labels, None)
    assert "are one-hot" in notes


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (np.zeros((4, 14), np.uint8), "Labels of shape (N, 14) are multi-label"),
        (torch.ones(2, 3), "Labels of shape (N, 3) are multi-label"),
        ([[0, 2], [1]], "lists of different lengths are multi-label"),
        ([[], [1]], "lists of different lengths are multi-label"),
        ([[3, 5], [1, 2]], "Labels of shape (N, 2) are several values per sample"),
        (np.zeros((2, 4, 4)), "Labels of shape (N, 4, 4) are not classes"),
        ([0.5, 1.0], "such as 0.5, are a target of regression"),
        (np.array([1.0, np.inf]), "such as inf, are a target of regression"),
        ([{"boxes": []}, {"boxes": []}], "Labels of type dict are not classes"),
        ([["a", "b"], ["c", "d"]], "lists of 2 values are not classes"),
    ],
)
@pytest.mark.parametrize("names", [None, ["a", "b"]])
def test_other_targets_switch_the_probe_off_and_say_so(column, said, names):
    labels, classes, notes = encoded(column, names)
    assert (labels, classes) == (None, None)
    assert said in notes
    assert notes.endswith("the probe and the evaluation are off.")


def test_splits_are_numbered_together():
    found = encode_labels({"train": ["b", "a"], "val": ["c", "a"], "test": None})
    assert found.class_names == ["a", "b", "c"]
    assert (found.labels["train"].tolist(), found.labels["val"].tolist()) == ([1, 0], [2, 0])
    assert found.labels["test"] is None
    assert found.notes[-1] == "1 class(es) of the val split have no training sample: 'c'."
    identifiers = encode_labels({"train": [5, 10**6], "test": [10**5]})
    assert identifiers.labels["test"].tolist() == [1]
    assert "of the test split have no training sample: '100000'" in identifiers.notes[-1]


def test_splits_of_different_kinds():
    mixed = encode_labels({"train": np.eye(2), "val": [0, 1]})
    assert mixed.labels == {"train": None, "val": None}
    assert "single values in one split and several per sample in another" in mixed.notes[0]
    widths = encode_labels({"train": np.eye(2), "val": np.eye(3)})
    assert "Labels of shapes (N, 2) and (N, 3) differ" in widths.notes[0]


@pytest.mark.parametrize(
    ("column", "labels"),
    [([1, -1, 0], [1, -1, 0]), (["b", "a", None], [1, 0, -1]), (["1", "a"], [1, 0]), ([1.0, 0.0], [1, 0])],
)
def test_given_names_number_the_classes(column, labels):
    assert encoded(column, ["a", "b"])[:2] == (labels, ["a", "b"])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([0, 1, 9], "Label 9 of val sample 2 has no class name: there are 2, of the labels 0 … 1"),
        ([0, 10**9], "Label 1000000000 of val sample 1 has no class name"),
        (["a", "bird"], "Label 'bird' of val sample 1 is not among the class names 'a', 'b'"),
    ],
)
def test_a_label_beyond_the_names_is_refused_by_split_and_sample(column, said):
    with pytest.raises(DataError) as error:
        encode_labels({"train": [0, 1], "val": column}, ["a", "b"])
    assert said in str(error.value)


def test_no_labels_keep_the_names():
    found = encode_labels({"train": None, "val": None}, ["a"])
    assert (found.labels, found.class_names, found.notes) == ({"train": None, "val": None}, ["a"], [])


@quick
@given(st.lists(st.integers(-3, 10**12) | st.none(), min_size=1, max_size=40), st.integers(0, 40))
def test_equal_labels_get_equal_numbers_in_order_in_all_splits(values, cut):
    found = encode_labels({"train": values[:cut], "val": values[cut:]})
    numbers = [*found.labels["train"].tolist(), *found.labels["val"].tolist()]
    for value, number in zip(values, numbers, strict=True):
        if value is None or value < 0:
            assert number == -1
        elif found.class_names is None:
            assert number == value
        else:
            assert found.class_names[number] == str(value)
    known = sorted({value for value in values if value is not None and value >= 0})
    if known:
        count = max(numbers) + 1
        assert count == (len(known) if found.class_names else known[-1] + 1)
        assert count <= 2 * len(known) + 10


@quick
@given(st.lists(st.text(max_size=6), min_size=1, max_size=30))
def test_text_keeps_its_name_up_to_case(values):
    labels, names, _ = encoded(values)
    merged, _ = merge_names({value: values.count(value) for value in values})
    for value, label in zip(values, labels, strict=True):
        if label >= 0:
            assert names[label] == merged[value] or names[label].casefold() == merged[value].casefold()
    assert set(labels) - {-1} == set(range(len(names or [])))


@quick
@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_as_text_are_sorted_as_numbers(values):
    assert sort_names(map(str, values)) == [str(value) for value in sorted(values)]
