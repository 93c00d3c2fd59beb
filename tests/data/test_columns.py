"""Columns of images and labels: those named so, or the only ones of their type."""

from __future__ import annotations

import pytest

from diet_lightning.data.columns import choose_columns, join_names
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.errors import ConfigurationError, DataError

datasets = pytest.importorskip("datasets")
IMAGE, CLASS, INT, TEXT = (
    datasets.Image(),
    datasets.ClassLabel(names=["a"]),
    datasets.Value("int64"),
    datasets.Value("string"),
)
STORED = {"bytes": datasets.Value("binary"), "path": TEXT}


def chosen(features, **read):
    return choose_columns(features, ReadConfig(**read), "source 'x'")


@pytest.mark.parametrize(
    ("features", "image", "label"),
    [
        ({"mask": IMAGE, "camera": CLASS, "image": IMAGE, "label": CLASS}, "image", "label"),
        ({"depth": IMAGE, "IMG": IMAGE, "Fine_Label": INT}, "IMG", "Fine_Label"),
        ({"photograph": IMAGE, "animal": CLASS, "id": INT}, "photograph", "animal"),
        ({"image": STORED, "label": TEXT}, "image", "label"),
        ({"image": TEXT, "label": IMAGE}, "label", None),  # a mask, and text that need not be a path
        ({"image": IMAGE, "label": IMAGE}, "image", None),
        ({"jpg": IMAGE, "cls": INT, "__key__": TEXT}, "jpg", "cls"),
        ({"meta.image": IMAGE, "meta.label": INT}, "meta.image", "meta.label"),
        ({"image": TEXT, "target": INT}, "image", "target"),
        ({"image": IMAGE, "caption": TEXT}, "image", None),
    ],
)
def test_columns(features, image, label):
    assert chosen(features)[:2] == (image, label)


def test_a_choice_among_several_is_told():
    _, _, notes = chosen({"mask": IMAGE, "camera": CLASS, "image": IMAGE, "label": CLASS})
    assert notes == [
        "Images are column 'image' (also: 'mask'); set read.image_column to choose another.",
        "Labels are column 'label' (also: 'camera'); set read.label_column to choose another.",
    ]
    assert chosen({"image": IMAGE, "label": CLASS, "id": INT})[2] == []
    image, label, notes = chosen({"image": IMAGE, "camera": CLASS, "species": CLASS})
    assert (image, label) == ("image", None)
    assert "['camera', 'species'] could be the labels, so none is used; set read.label_column" in notes[0]


def test_the_user_chooses():
    features = {"mask": IMAGE, "camera": CLASS, "image": IMAGE, "label": CLASS}
    assert chosen(features, image_column="mask", label_column="camera")[:2] == ("mask", "camera")
    for option in ("image_column", "label_column"):
        with pytest.raises(ConfigurationError, match=rf"`read.{option}`.*\['mask', 'camera', 'image', 'label'\].*'no'"):
            chosen(features, **{option: "no"})


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"left": IMAGE, "right": IMAGE}, r"several columns of images, \['left', 'right'\]: set `read.image_column`"),
        ({"text": TEXT, "label": INT}, r"columns \['label', 'text'\], but no column of images"),
    ],
)
def test_images_that_cannot_be_told_apart_are_refused(features, said):
    with pytest.raises(DataError, match=said):
        chosen(features)


def test_names_of_another_order_become_the_labels():
    columns = {"train": [0, 1, None], "val": [0, 1, -1], "test": None}
    same = {"train": ["a", "b"], "val": ["a", "b"], "test": None}
    assert join_names(columns, same) == (columns, ["a", "b"])
    other = {"train": ["a", "b"], "val": ["b", "a"], "test": None}
    joined = {"train": ["a", "b", None], "val": ["b", "a", None], "test": None}
    assert join_names(columns, other) == (joined, None)
    assert join_names(columns, dict.fromkeys(columns)) == (columns, None)


@pytest.mark.parametrize("kind", [None, INT, CLASS])
def test_another_column_that_may_be_the_labels_is_told(kind):
    image, label, (note,) = chosen({"image": IMAGE, "coarse_label": kind, "fine_label": kind, "width": INT})
    assert (image, label) == ("image", "fine_label")
    assert "'fine_label' (also: 'coarse_label')" in note
    assert "read.label_column" in note


@pytest.mark.parametrize("kind", [None, INT, TEXT])
def test_columns_that_are_not_read_as_labels_are_told(kind):
    image, label, (note,) = chosen({"image": IMAGE, "y": kind})
    assert (image, label) == ("image", None)
    assert "No column is read as labels; if one of 'y' holds them, set read.label_column" in note
    assert chosen({"image": IMAGE, "y": kind}, label_column="y")[1] == "y"


def test_columns_of_lists_are_not_proposed_as_images():
    features = datasets.Features({"images": datasets.Sequence(IMAGE), "label": INT})
    with pytest.raises(DataError, match=r"one image of each list in \['images'\] into a column of its own") as error:
        chosen(features)
    assert "read.image_column" not in str(error.value)
