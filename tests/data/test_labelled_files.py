"""Classes of several splits: numbered together, merged where only the case differs, and told where something looks wrong."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_lightning.data.labelled_files import LabelledFiles, number_classes


def files(*names):
    return LabelledFiles.from_names([f"{n}.png" for n in range(len(names))], names)


def numbered(**splits):
    return number_classes({split: files(*names) for split, names in splits.items()})


def labels(found):
    return {split: values.tolist() for split, values in found.labels.items()}


def test_classes_of_all_splits_are_numbered_together_in_order():
    found = numbered(train=["d", "b", None], val=["a", "d"])
    assert (found.class_names, labels(found)) == (["a", "b", "d"], {"train": [2, 1, -1], "val": [0, 2]})
    assert all(values.dtype == torch.int64 for values in found.labels.values())


@pytest.mark.parametrize(
    ("train", "val"),
    [("Cat", "cat"), ("STRASSE", "straße"), ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9"))],
)
def test_names_that_differ_in_case_alone_are_one_class_and_told(train, val):
    found = numbered(train=[train, train, "dog", "dog"], val=[val, "dog"])
    assert found.class_names == sorted([train, "dog"])
    assert labels(found)["val"] == [found.class_names.index(train), found.class_names.index("dog")]
    (note,) = found.notes
    both = " and ".join(map(repr, sorted([train, val])))
    assert note == f"Class names that differ only in case or spaces are one class: {both}."


def test_the_spelling_is_the_most_frequent_one_of_the_first_split_that_has_the_class():
    found = numbered(train=["Cat", "cat", "cat"], val=["CAT", "CAT", "CAT", "Dog"], test=["dog", "dog"])
    assert found.class_names == ["Dog", "cat"]
    assert labels(found) == {"train": [1, 1, 1], "val": [1, 1, 1, 0], "test": [0, 0]}
    assert "are one class: 'CAT' and 'Cat' and 'cat', 'Dog' and 'dog'." in found.notes[0]


@pytest.mark.parametrize("other", ["golden retriever", "golden-retriever", "Golden Retriever ", "goldenretriever"])
def test_similar_names_and_classes_unknown_in_training_are_told(other):
    found = numbered(train=["golden_retriever"] * 2, val=[other, "golden_retriever"])
    assert len(found.class_names) == 2
    assert any("similar names are different classes" in note and repr(other) in note for note in found.notes)
    assert any(f"1 class(es) of the val split have no training sample: {other!r}." in note for note in found.notes)


def test_no_note_where_nothing_looks_wrong():
    assert numbered(train=["a", "b", "a", "b"], val=["b"], test=[None]).notes == []
    assert numbered(train=[None, None]).notes == []


def test_folders_that_are_numbers_are_in_alphabetical_order_as_in_torchvision():
    assert number_classes({"train": files("10", "9", "2")}).class_names == ["10", "2", "9"]


def test_numbers_are_not_similar_names():
    assert numbered(train=["1.5", "15", "-15", "a"]).notes == []


def alike(name):
    return name.strip().casefold()


NAMES = st.lists(st.none() | st.sampled_from(["a", "A", "b", "B", "b ", "É", "é"]), max_size=6)


@given(NAMES, NAMES, NAMES)
def test_labels_name_the_class_of_each_file_but_for_its_case(train, val, test):
    given_names = {"train": train, "val": val, "test": test}
    found = numbered(**given_names)
    classes = found.class_names or []
    assert classes == sorted(set(classes))
    for split, names in given_names.items():
        for name, label in zip(names, labels(found)[split], strict=True):
            assert (label == -1) == (name is None)
            if name is not None:
                assert alike(classes[label]) == alike(name)
                spelt = {each for each in train if each is not None and alike(each) == alike(name)}
                assert classes[label] in spelt or not spelt
    used = {label for values in labels(found).values() for label in values} - {-1}
    assert used == set(range(len(classes)))
