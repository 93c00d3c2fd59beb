"""What folders mean: splits by their usual names, classes, or nothing; what is decided is told, and what is unclear is refused."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diet_lightning.data.layouts import folder_layout
from diet_lightning.data.listing import list_images
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.sources import SourceOptions, load_source
from diet_lightning.data.split_names import hinted_split, split_of
from diet_lightning.errors import DataError


def make(root, *files, count=2):
    """Images; a name that ends with a slash stands for some in that folder."""
    for name in files:
        for file in [f"{name}{n}.png" for n in range(count)] if name.endswith("/") else [name]:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 6)).save(root / file)
    return root


def opened(root, layout="auto", **options):
    return load_source(f"folder:{root}", SourceOptions(holdout=0.0, read=ReadConfig(layout=layout, **options)))


def splits(source):
    """Split → names of the images' classes, None without one."""
    named = {"train": source.train, "val": source.val, "test": source.test}
    names = source.class_names
    return {
        split: [None if label < 0 else names[label] for label in data.labels.tolist()]
        for split, data in named.items()
        if data is not None
    }


def said(source, root):
    return [note.replace(str(root), "R") for note in source.notes]


# -- names of splits ---------------------------------------------------------------------------------------------------

KNOWN = {
    "train": "train Train TRAINING training_set train-set trainset train_images TrainImages trainingdata train2017 "
    "images_train img_train trainingsplit train_dataset",
    "val": "val Valid VALIDATION dev validation_set val_imgs val2017 validationset development",
    "test": "test Testing test_set testset TEST-IMAGES eval evaluation test2015 test_pictures",
}


@pytest.mark.parametrize(("split", "name"), [(split, name) for split in KNOWN for name in KNOWN[split].split(" ")])
def test_usual_names_of_splits_are_known(split, name):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "name",
    ["cat", "trains", "training_day", "contest", "latest", "device", "value", "set", "2017", "", "tests", "evaluate"],
)
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[("seg_train", "train"), ("testA", "test"), ("DIV2K_valid_HR", "val"), ("training_set", "train")],
        *[("trainval", None), ("train_test", None), ("restrain", None), ("cat", None)],
    ],
)
def test_a_name_hints_at_a_split_by_a_word_of_it(name, split):
    assert hinted_split(name) == split


@given(st.sampled_from(["", "_", "-", " "]), st.sampled_from(["set", "split", "data", "images", "imgs", "pictures"]))
def test_case_separators_and_usual_words_do_not_change_a_split(separator, word):
    for name, split in (("train", "train"), ("valid", "val"), ("testing", "test")):
        for given_name in (f"{name}{separator}{word}", f"{name.title()}{separator}{word.upper()}"):
            assert split_of(given_name) == split


# -- splits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        *[("training_set", "test_set", "test"), ("Train", "Dev", "val"), ("train2017", "val2017", "val")],
        *[("trainset", "validation", "val"), ("train_images", "eval", "test")],
    ],
)
def test_split_folders_are_found_by_their_usual_names(tmp_path, train, other, split):
    make(tmp_path, f"{train}/cat/", f"{train}/dog/", f"{other}/cat/", f"{other}/dog/")
    source = opened(tmp_path)
    assert splits(source) == {"train": ["cat", "cat", "dog", "dog"], split: ["cat", "cat", "dog", "dog"]}
    assert said(source, tmp_path) == [
        f"Read the folders of 'R' as splits: '{train}' as train, '{other}' as {split}; set read.layout to classes or flat if "
        "they are not.",
        f"Read the 2 folder(s) below 'R/{train}' as classes (cat, dog); write folder:R/{train} and set read.layout to flat if "
        "they are not classes.",
    ]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["val/cat/", "val/dog/", "test/cat/"], "holds 'test', 'val', but no folder for training: name one 'train'"),
        (["Testing/cat/"], "holds 'Testing', but no folder for training"),
        (["cat/", "dog/", "test/"], "holds 'test', but no folder for training.*read.layout to classes"),
        (
            ["train/", "training/", "test/"],
            "holds the folders 'train', 'training', which are all named after the split train",
        ),
        (["train/cat/", "dog/"], "holds 'train' beside 'dog': splits, or classes"),
        (
            ["train/", "test/", "unlabelled/"],
            "holds 'train' beside 'unlabelled'.*read.layout to splits to leave the others",
        ),
        (["seg_train/a/", "seg_test/a/"], "holds 'seg_test', 'seg_train', which may be splits or classes"),
        (["trainA/", "trainB/", "testA/"], "which may be splits or classes: rename them to train, val and test"),
        (["images/", "masks/"], "holds 'images' beside 'masks'.*write folder:.*images"),
        (["train/img/a/", "train/img/b/", "train/Annotations/", "val/img/"], "holds 'img' beside 'Annotations'"),
    ],
)
def test_what_may_mean_several_things_is_refused_with_the_cure(tmp_path, folders, message):
    make(tmp_path, *folders)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize("layout", ["classes", "flat"])
def test_the_layouts_that_an_error_names_read_the_folder(tmp_path, layout):
    make(tmp_path, "cat/", "dog/", "test/")
    names = ["cat", "dog", "test"] if layout == "classes" else None
    source = opened(tmp_path, layout)
    assert source.class_names == names
    assert (len(source.train), source.test) == (6, None)


def test_the_layout_splits_takes_hints_and_tells_what_lies_beside(tmp_path):
    make(tmp_path, "seg_train/a/", "seg_train/b/", "seg_test/b/", "seg_test/a/", "seg_pred/", "loose.png")
    source = opened(tmp_path, "splits")
    assert splits(source) == {"train": ["a", "a", "b", "b"], "test": ["a", "a", "b", "b"]}
    assert any(
        "Left out 3 image(s) of 'R' that lie beside its splits, in 'seg_pred' and the" in note
        for note in said(source, tmp_path)
    )
    with pytest.raises(DataError, match=r"Left out 3 image\(s\).*set read.strict to false"):
        opened(tmp_path, "splits", strict=True)


def test_the_layout_splits_needs_split_folders(tmp_path):
    make(tmp_path, "cat/", "dog/")
    with pytest.raises(DataError, match=r"such as train, val and test .* but got \[cat, dog\]"):
        opened(tmp_path, "splits")


def test_an_empty_folder_beside_classes_is_no_split(tmp_path):
    make(tmp_path, "cat/", "dog/")
    (tmp_path / "test").mkdir()
    assert opened(tmp_path).class_names == ["cat", "dog"]


def test_the_training_split_decides_for_the_others(tmp_path):
    make(tmp_path / "labelled", "train/cat/", "train/dog/", "test/")
    source = opened(tmp_path / "labelled")
    assert splits(source) == {"train": ["cat", "cat", "dog", "dog"], "test": [None, None]}
    assert any("2 of the 2 images of the test split lie in no class folder" in note for note in source.notes)
    make(tmp_path / "flat", "train/", "val/cat/", "val/dog/")
    source = opened(tmp_path / "flat")
    assert splits(source) == {"train": [None] * 2, "val": [None] * 4}
    told = "The folders of the val split (cat, dog) look like classes, but its images are read without labels, as the training"
    assert sum(told in note for note in source.notes) == 1
    assert not any("look like classes" in note for note in opened(tmp_path / "labelled").notes)


@pytest.mark.parametrize("inner", [("train", "test"), ("images", "images"), ("train/images", "unknown")])
def test_a_single_folder_inside_a_split_is_entered(tmp_path, inner):
    make(tmp_path, f"train/{inner[0]}/cat/", f"train/{inner[0]}/dog/", f"test/{inner[1]}/")
    source = opened(tmp_path)
    assert splits(source) == {"train": ["cat", "cat", "dog", "dog"], "test": [None, None]}
    assert any(f"Entered 'R/test/{inner[1]}'" in note for note in said(source, tmp_path))


def test_a_single_class_of_a_split_is_not_entered(tmp_path):
    make(tmp_path, "train/cat/", "train/dog/", "val/Dog/")
    assert splits(opened(tmp_path)) == {"train": ["cat", "cat", "dog", "dog"], "val": ["dog", "dog"]}


# -- classes or not ----------------------------------------------------------------------------------------------------


def test_folders_that_all_hold_images_are_classes(tmp_path):
    make(tmp_path, *(f"c{n}/" for n in range(7)))
    source = opened(tmp_path)
    assert source.class_names == [f"c{n}" for n in range(7)]
    assert said(source, tmp_path) == [
        "Read the 7 folder(s) below 'R' as classes (c0, c1, c2, c3, c4, …); set read.layout to flat if they are not classes."
    ]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["2021/", "2022/"], r"named after dates \(2021, 2022\)"),
        (["2021-06-03/", "2021-07-12/"], "named after dates"),
        (["2021_05/", "20210603/", "03.06.2022/"], "named after dates"),
        (["2021/05/", "2021/06/", "2022/05/"], "named after dates"),
        (["2021/05/", "2022/06/", "misc/"], "hold folders with images, such as '2022/06'"),
        (["cat/", "dog/", "loose.png"], "lie right in it and in folders below it"),
        (["cat/", "dog/", "dog/wild/far/"], "hold folders with images, such as 'dog/wild/far'"),
        (["0.png", "1.png"], "they lie in no folders below it; put them into class folders, or write csv:FILE"),
    ],
)
def test_other_images_are_read_without_labels_and_why_is_told(tmp_path, files, why):
    make(tmp_path, *files)
    source = opened(tmp_path)
    count = len(list(tmp_path.rglob("*.png")))
    assert splits(source) == {"train": [None] * count}
    (note,) = said(source, tmp_path)
    assert note.startswith(f"Read the {count} images below 'R' without labels, since ")
    assert re.search(why, note)


@pytest.mark.parametrize("classes", [("2021", "cat"), ("0", "1"), ("3021", "3022"), ("1995a", "1996b")])
def test_other_numbers_are_classes(tmp_path, classes):
    make(tmp_path, *(f"{name}/" for name in classes))
    assert opened(tmp_path).class_names == sorted(classes)


def test_images_in_the_same_folder_of_each_class_have_classes(tmp_path):
    make(tmp_path, "cat/images/", "dog/images/")
    assert splits(opened(tmp_path)) == {"train": ["cat", "cat", "dog", "dog"]}


def test_months_below_a_year_are_dates_too(tmp_path):
    make(tmp_path, "2021/05/", "2021/06/")
    for root in (tmp_path, tmp_path / "2021"):
        source = opened(root)
        assert source.class_names is None
        assert any("named after dates (05, 06)" in note for note in source.notes)


def test_classes_may_be_asked_for(tmp_path):
    make(tmp_path, "2021/05/", "2022/06/", "misc/", "loose.png", "misc/deep/er/")
    source = opened(tmp_path, "classes")
    assert sorted(map(str, splits(source)["train"])) == ["2021"] * 2 + ["2022"] * 2 + ["None"] + ["misc"] * 4
    assert any("1 of the 9 images of the train split lie in no class folder" in note for note in source.notes)
    with pytest.raises(DataError, match=r"Expected class folders below .*misc/deep/er"):
        opened(tmp_path / "misc/deep/er", "classes")


@pytest.mark.parametrize("wrapped", ["photos/", "photos/photos/", "a/b/c/"])
@pytest.mark.parametrize("layout", ["auto", "classes"])
def test_a_folder_too_deep_is_entered_and_told(tmp_path, wrapped, layout):
    make(tmp_path, f"{wrapped}cat/", f"{wrapped}dog/")
    (tmp_path / "readme.txt").touch()
    source = opened(tmp_path, layout)
    assert splits(source) == {"train": ["cat", "cat", "dog", "dog"]}
    assert said(source, tmp_path)[0].startswith(f"Entered 'R/{wrapped[:-1]}', the only folder with images in 'R'")
    assert source.train.names[0] == f"{wrapped}cat/0.png"


def test_splits_are_found_below_a_single_folder(tmp_path):
    make(tmp_path, "data/set/train/cat/", "data/set/train/dog/", "data/set/val/cat/")
    assert splits(opened(tmp_path)) == {"train": ["cat", "cat", "dog", "dog"], "val": ["cat", "cat"]}


def test_a_single_class_may_be_asked_for(tmp_path):
    make(tmp_path, "cat/")
    assert opened(tmp_path).class_names is None
    assert opened(tmp_path, "classes").class_names == ["cat"]


def test_the_files_of_mnist_are_answered_with_how_to_read_them(tmp_path):
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"no images, but IDX files .* ROOT/MNIST/raw and write torchvision:MNIST .* 2 \.gz"
    ):
        opened(tmp_path)


def test_an_error_on_no_images_tells_what_there_is(tmp_path):
    (tmp_path / "x.dcm").touch()
    with pytest.raises(DataError, match=r"holds no images.* Left out 1 file below .*: 1 .dcm\."):
        opened(tmp_path)


NAMES = st.sampled_from(["train", "val", "Test", "cat", "dog", "2021", "05", "images"])


@given(
    st.lists(st.lists(NAMES, max_size=3), min_size=1, max_size=6, unique_by=tuple),
    st.sampled_from(["auto", "classes", "flat", "splits"]),
)
def test_every_image_is_in_one_split_or_told_to_be_left_out(folders, layout):
    with tempfile.TemporaryDirectory() as root:
        for parts in folders:
            Path(root, *parts).mkdir(parents=True, exist_ok=True)
            Path(root, *parts, "x.png").touch()
        listing = list_images(root)
        refused = None
        try:
            found = folder_layout(listing, layout)
        except DataError as error:
            refused = str(error)
        if refused:
            assert "read.layout" in refused or "holds no images" in refused
            return
        paths = [path for files in found.splits.values() for path in files.paths]
        assert len(paths) == len(set(paths))
        assert len(paths) == len(listing.paths) or found.left_out
        assert found.notes
        for files in found.splits.values():
            assert len(files.paths) == len(files.classes)
            assert set(files.classes.tolist()) - {-1} == set(range(len(files.names)))
        if layout == "flat":
            assert paths == listing.paths


@pytest.mark.parametrize(
    ("files", "pictures", "masks"),
    [
        (["train/image/", "train/label/"], "train/image", "label"),
        (["my_images/", "my_masks/"], "my_images", "my_masks"),
        (["JPEGImages/", "SegmentationClass/"], "JPEGImages", "SegmentationClass"),
        (["site1/img/", "site1/ann/", "site2/img/", "site2/ann/"], "site1/img", "ann"),
    ],
)
def test_images_beside_masks_are_refused_at_any_depth(tmp_path, files, pictures, masks):
    with pytest.raises(DataError, match=re.escape(masks)) as caught:
        opened(make(tmp_path, *files))
    assert f"folder:{tmp_path / pictures}," in str(caught.value)
    assert len(opened(tmp_path / pictures).train) == 2


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["cat/train/", "cat/test/", "dog/train/", "dog/test/"], "cat"),
        (["bottle/train/good/", "bottle/test/bad/", "bottle/ground_truth/bad/", "cable/train/good/"], "bottle"),
        (["a/first/training_set/", "a/first/validation_set/", "b/"], "a/first"),
        (["train/x/train/", "train/x/test/", "train/y/train/", "test/x/"], "train/x"),
    ],
)
def test_splits_inside_classes_are_refused(tmp_path, files, folder):
    make(tmp_path, *files)
    with pytest.raises(DataError, match="splits inside a class") as caught:
        opened(tmp_path)
    assert f"Folder '{tmp_path / folder}' holds" in str(caught.value)
    assert f"folder:{tmp_path / folder} to read" in str(caught.value)


@pytest.mark.parametrize("names", [("train", "test"), ("seg_train", "seg_test")])
def test_the_only_class_of_a_split_one_level_deeper_is_a_class(tmp_path, names):
    train, test = names
    make(tmp_path, f"{train}/{train}/cat/", f"{train}/{train}/dog/", f"{test}/{test}/cat/")
    source = opened(tmp_path, "splits")
    assert splits(source) == {"train": ["cat", "cat", "dog", "dog"], "test": ["cat", "cat"]}


@pytest.mark.parametrize(
    "names",
    [
        ("May 2021", "June 2022"),
        ("2021-Sept", "2022 january"),
        ("3 May 2021", "December 24, 2021"),
        ("Photos from 2019", "Photos from 2020"),
        ("summer_2021", "2021Q4"),
    ],
)
def test_months_and_seasons_of_years_are_dates(tmp_path, names):
    source = opened(make(tmp_path, *(f"{name}/" for name in names)))
    assert source.class_names is None
    assert any("named after dates" in note for note in source.notes)


@pytest.mark.parametrize("names", [("BMW 2010", "Audi 2008"), ("may", "march"), ("marches 2020", "mays 2021")])
def test_other_words_before_years_are_classes(tmp_path, names):
    assert sorted(opened(make(tmp_path, *(f"{name}/" for name in names))).class_names) == sorted(names)
