"""Folders as the archives of TinyImageNet and CUB-200-2011 unpack them: damaged, rearranged, incomplete."""

from __future__ import annotations

import pytest
import scipy.io
from published_sets import TRAIN, VAL, save, write_cars, write_cub, write_text, write_tiny_imagenet

from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.sources import SourceOptions, load_source
from diet_lightning.errors import DataError


@pytest.fixture
def tiny(tmp_path):
    write_tiny_imagenet(tmp_path, None)
    return tmp_path / "tiny-imagenet-200"


@pytest.fixture
def birds(tmp_path):
    write_cub(tmp_path, None)
    return tmp_path / "CUB_200_2011"


def opened(root):
    return load_source(f"folder:{root}", SourceOptions(image_size=8))


def labels(dataset):
    return [dataset[n][1] for n in range(len(dataset))]


def test_classes_of_the_validation_images_come_from_their_list(tiny):
    source = opened(tiny)
    assert list(source.class_names) == ["n00", "n01", "n02"]
    assert (labels(source.train), labels(source.val)) == (sorted(TRAIN), VAL)
    assert source.test is None  # their classes are not public


def test_validation_images_may_have_been_moved_into_class_folders(tiny):
    for n, label in enumerate(VAL):
        folder = tiny / f"val/n0{label}"
        folder.mkdir()
        (tiny / f"val/images/val_{n}.JPEG").rename(folder / f"val_{n}.JPEG")
    for _ in range(2):  # with the empty folder and without it
        source = opened(tiny)
        assert list(source.class_names) == ["n00", "n01", "n02"]
        assert (labels(source.val), source.test) == (sorted(VAL), None)
        if (tiny / "val/images").exists():
            (tiny / "val/images").rmdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda val: (val / "images/val_1.JPEG").unlink(),
            r"lists 1 image\(s\) that do not exist, such as .*val_1.JPEG",
        ),
        (lambda val: write_text(val / "val_annotations.txt", "val_0.JPEG"), "at least two words .* got 'val_0.JPEG'"),
        (lambda val: (val / "val_annotations.txt").write_bytes(b"\xff\xfe\x00"), "cannot be read as text"),
    ],
    ids=["image", "class", "list"],
)
def test_a_damaged_list_of_validation_classes_is_refused(tiny, damage, message):
    damage(tiny / "val")
    with pytest.raises(DataError, match=message):
        opened(tiny)


def test_a_list_of_validation_classes_without_images_is_refused(tiny):
    for file in (tiny / "val/images").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="val' holds no images"):
        opened(tiny)


def test_classes_of_birds_are_those_of_their_own_list(birds):
    source = opened(birds)
    numbers = dict(line.split() for line in (birds / "image_class_labels.txt").read_text().splitlines())
    number_of = {name: numbers[n] for n, name in map(str.split, (birds / "images.txt").read_text().splitlines())}
    for split in (source.train, source.test):
        assert labels(split) == [int(number_of[name.removeprefix("images/")]) - 1 for name in split.names]
    assert (len(source.train), len(source.test), source.val) == (6, 3, None)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: write_text(root / "train_test_split.txt", "1 0", "2 1"),
            r"whether image 3 \(.*a line '3 1' if it is",
        ),
        (lambda root: write_text(root / "train_test_split.txt", *(f"{n} x" for n in range(1, 10))), "whether image 1 "),
        (
            lambda root: write_text(root / "train_test_split.txt", *(f"{n} 0" for n in range(1, 10))),
            "no image for training",
        ),
        (
            lambda root: write_text(root / "images.txt", "1 001.A/gone.jpg", "2 001.A/gone.jpg"),
            "lists 1 image.*gone.jpg",
        ),
    ],
    ids=["short list", "no flag", "all test", "no file"],
)
def test_damaged_lists_of_birds_are_refused(birds, damage, message):
    damage(birds)
    with pytest.raises(DataError, match=message):
        opened(birds)


def test_a_folder_with_a_list_of_its_own_is_an_ordinary_one(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / "set" / name / "1.jpg", 0)
    write_text(tmp_path / "set/images.txt", "notes")
    assert list(opened(tmp_path / "set").class_names) == ["cat", "dog"]


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_damaged_annotations_of_a_torchvision_set_are_refused(tmp_path, damage):
    write_cars(tmp_path, None)
    file = tmp_path / "stanford_cars/devkit/cars_train_annos.mat"
    if damage == "truncated":
        file.write_bytes(b"")
    else:
        scipy.io.savemat(file, {"something": 1})
    with pytest.raises(DataError, match="train split of torchvision's StanfordCars cannot be opened"):
        load_source("torchvision:StanfordCars", SourceOptions(root=str(tmp_path), image_size=8))


def test_images_of_an_archive_that_no_list_names_are_told(tiny, birds):
    assert any("Left out 6 image(s)" in note and "classes of the test images" in note for note in opened(tiny).notes)
    save(birds / "images" / "001.A" / "new.jpg", 0)
    assert any(
        "Left out 1 image(s)" in note and "images.txt does not list them" in note for note in opened(birds).notes
    )


@pytest.mark.parametrize("kind", ["tiny", "birds"])
def test_another_layout_than_the_archives_may_be_asked_for(request, kind):
    root = request.getfixturevalue(kind)
    source = load_source(f"folder:{root}", SourceOptions(image_size=8, read=ReadConfig(layout="flat")))
    assert len(source.train) == len([path for path in root.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg")])
    assert source.class_names is None
