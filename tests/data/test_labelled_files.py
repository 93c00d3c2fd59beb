"""Classes of several splits: numbered together, merged where only the case differs, and told where something looks wrong."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
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
    assert (found.names, labels(found)) == (["a", "b", "d"], {"train": [2, 1, -1], "val": [0, 2]})
    assert all(values.dtype == np.int64 for values in found.labels.values())


@pytest.mark.parametrize(
    ("train", "val"),
    [("Cat", "cat"), ("STRASSE", "straße"), ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9"))],
)
def test_names_that_differ_in_case_alone_are_one_class_and_told(train, val):
    found = numbered(train=[train, train, "dog", "dog"], val=[val, "dog"])
    assert found.names == sorted([train, "dog"])
    assert labels(found)["val"] == [found.names.index(train), found.names.index("dog")]
    (note,) = found.notes
    assert note.startswith(f"Merged classes whose names differ in case alone: {val!r} of val with {train!r};")


def test_names_of_one_split_are_not_merged_but_told():
    found = numbered(train=["Cat", "cat", "Cat", "cat"], val=["CAT", "cat"])
    assert found.names == ["CAT", "Cat", "cat"]
    assert labels(found) == {"train": [1, 2, 1, 2], "val": [0, 2]}  # which of the two CAT means is not known
    assert any("similar names are different classes: 'CAT' and 'Cat' and 'cat'" in note for note in found.notes)


@pytest.mark.parametrize("other", ["golden retriever", "golden-retriever", "Golden_Retriever ", "goldenretriever"])
def test_similar_names_and_classes_unknown_in_training_are_told(other):
    found = numbered(train=["golden_retriever"] * 2, val=[other, "golden_retriever"])
    assert len(found.names) == 2
    assert any("similar names are different classes" in note and repr(other) in note for note in found.notes)
    assert any(
        f"The val split has 1 class(es) that the training split does not have: {other};" in note for note in found.notes
    )


def test_no_note_where_nothing_looks_wrong():
    assert numbered(train=["a", "b", "a", "b"], val=["b"], test=[None]).notes == []
    assert numbered(train=[None, None]).notes == []


def test_integers_are_numbered_by_their_value_if_asked():
    splits = {"train": files("10", "9", "2")}
    assert number_classes(splits, by_number=True).names == ["2", "9", "10"]
    assert number_classes(splits).names == ["10", "2", "9"]


NAMES = st.lists(st.none() | st.sampled_from(["a", "A", "b", "B", "b ", "É", "é"]), max_size=6)


@given(NAMES, NAMES, NAMES)
def test_labels_name_the_class_of_each_file_but_for_its_case(train, val, test):
    given_names = {"train": train, "val": val, "test": test}
    found = numbered(**given_names)
    assert found.names == sorted(set(found.names))
    for split, names in given_names.items():
        for name, label in zip(names, labels(found)[split], strict=True):
            assert (label == -1) == (name is None)
            if name is not None:
                assert found.names[label].casefold() == name.casefold()
                assert found.names[label] == name or split != "train"
    used = {label for values in labels(found).values() for label in values} - {-1}
    assert used == set(range(len(found.names)))
