"""Every kind of source on files made here: what is read, in which order, with which labels, and how it fails."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import shutil
import struct
import sys
import warnings

import numpy as np
import pytest
import torch
import torchvision.datasets
from helpers import images
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diet_lightning import DIETDataModule
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.image_files import ImageFileDataset, ImageFiles
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import identity_collate
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.sources import SourceOptions, load_source
from diet_lightning.errors import ConfigurationError, DataError


def save(path, value=0, size=(6, 6), mode="RGB"):
    """An image file of one colour, by which a test knows it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(path)
    return path


def save_tree(root, classes=("cat", "dog"), count=3, start=0):
    """Class folders; file number i overall has the colour `start` + i."""
    for c, name in enumerate(classes):
        for i in range(count):
            save(root / name / f"img{i}.png", start + c * count + i)
    return root


def colours(dataset):
    """First pixel of every image, in order."""
    return [int(dataset[n][0].flatten()[0]) for n in range(len(dataset))]


def labels(dataset):
    return [int(dataset[n][1]) for n in range(len(dataset))]


def opened(name, **options):
    """A source's splits."""
    return load_source(name, SourceOptions(**options))


def module(source, **options):
    """A data module in a deterministic, worker-free set-up unless asked otherwise."""
    made = DIETDataModule(source, **{"batch_size": 2, "num_workers": 0, **options})
    made.setup()
    return made


def everything(loader):
    """All batches, concatenated."""
    return [torch.cat(field) for field in zip(*loader, strict=True)]


def assert_one_split_stands_in_for_the_other(data, count):
    """As in the paper, probes are watched on the test split where there is no other."""
    val, test = everything(data.val_dataloader()), everything(data.test_dataloader())
    assert val[1].tolist() == list(range(count))
    assert all(torch.equal(a, b) for a, b in zip(val, test, strict=True))


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "cifar10", "digits:8", "folder", "folder:", "npz:", "hf:", "zip:x", ":", "Digits"]
)
def test_an_unknown_source_is_refused_with_the_kinds(name):
    with pytest.raises(ConfigurationError) as error:
        opened(name)
    assert repr(name) in str(error.value)
    for kind in ("digits", "torchvision:NAME", "folder:PATH", "csv:FILE", "npz:FILE", "hf:NAME", "hf:parquet:PATH"):
        assert f"'{kind}'" in str(error.value)


# -- digits ------------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_split_by_class_whatever_the_seed():
    data = module("digits", seed=3)
    assert (data.num_samples, data.input_shape, data.num_classes) == (1347, (1, 8, 8), 10)
    assert list(data.class_names) == [str(digit) for digit in range(10)]
    source, again = opened("digits"), opened("digits", seed=3)
    assert torch.equal(source.train.inputs, again.train.inputs)
    assert (len(source.train), len(source.test)) == (1347, 450)
    assert source.val is None
    assert_one_split_stands_in_for_the_other(module("digits", batch_size=256), 450)
    from sklearn.datasets import load_digits

    digits = load_digits()
    known = {image.tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    for part in (source.train, source.test):
        assert part.inputs.dtype == torch.uint8
        pixels = (part.inputs[:, 0].double() * 16 / 255).round().numpy()
        assert [known[image.tobytes()] for image in pixels] == part.labels.tolist()
    assert int(source.train.inputs.max()) == 255
    share = source.test.labels.bincount() / (source.train.labels.bincount() + source.test.labels.bincount())
    assert (share - 0.25).abs().max() < 0.01


def test_digits_have_their_own_ranges_and_the_users_win():
    assert module("digits")._pipeline.augmentation.flip == 0.0
    augmentation = module("digits", augmentation={"flip": 0.3})._pipeline.augmentation
    assert (augmentation.flip, tuple(augmentation.crop_scale)) == (0.3, (0.5, 1.0))


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("val_name", ["val", "valid", "Validation"])
def test_split_folders_of_class_folders(tmp_path, val_name):
    save_tree(tmp_path / "train", count=3)
    save_tree(tmp_path / val_name, count=1, start=100)
    save_tree(tmp_path / "test", count=2, start=200)
    source = opened(f"folder:{tmp_path}")
    assert colours(source.train) == [0, 1, 2, 3, 4, 5]
    assert labels(source.train) == [0, 0, 0, 1, 1, 1]
    assert (colours(source.val), labels(source.val)) == ([100, 101], [0, 1])
    assert (colours(source.test), labels(source.test)) == ([200, 201, 202, 203], [0, 0, 1, 1])
    data = module(f"folder:{tmp_path}")
    assert (data.num_samples, data.num_classes, list(data.class_names)) == (6, 2, ["cat", "dog"])
    assert data.input_shape == (3, 6, 6)


def test_classes_are_numbered_over_all_splits(tmp_path):
    save_tree(tmp_path / "train", ("b", "d"), count=1)
    save_tree(tmp_path / "val", ("a", "d"), count=1, start=100)
    source = opened(f"folder:{tmp_path}")
    assert list(source.class_names) == ["a", "b", "d"]
    assert (labels(source.train), labels(source.val)) == ([1, 2], [0, 2])


def test_one_missing_split_is_taken_from_the_other_and_nothing_is_held_out(tmp_path):
    save_tree(tmp_path / "train", count=10)
    save_tree(tmp_path / "val", count=1, start=100)
    source = opened(f"folder:{tmp_path}")
    assert (len(source.train), colours(source.val), source.test) == (20, [100, 101], None)
    assert_one_split_stands_in_for_the_other(module(f"folder:{tmp_path}"), 2)


@pytest.mark.parametrize("below", ["", "train"], ids=["one tree", "only train"])
def test_a_share_of_one_class_tree_is_held_out(tmp_path, below):
    save_tree(tmp_path / below, count=10)
    source = opened(f"folder:{tmp_path}", holdout=0.25)
    assert len(source.val) == round(0.25 * 20)
    assert sorted(colours(source.train) + colours(source.val)) == list(range(20))
    assert colours(source.train) == sorted(colours(source.train))  # the rest keeps its order
    for part in (source.train, source.val):
        assert labels(part) == [colour // 10 for colour in colours(part)]
    again, other = (opened(f"folder:{tmp_path}", holdout=0.25, seed=seed) for seed in (0, 1))
    assert colours(again.val) == colours(source.val)
    assert colours(other.val) != colours(source.val)
    without = opened(f"folder:{tmp_path}", holdout=0.0)
    assert (len(without.train), without.val, without.test) == (20, None, None)


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled test", "flat test"])
def test_images_are_held_out_unless_another_split_can_be_measured(tmp_path, labelled):
    save_tree(tmp_path / "train", count=10)
    save_tree(tmp_path / "test", ("cat",) if labelled else ("",), count=4, start=200)
    data = module(f"folder:{tmp_path}", holdout=0.2)
    assert (data.num_samples, data.has_labels("test")) == ((20, True) if labelled else (16, False))
    val = everything(data.val_dataloader())
    assert sorted(val[0][:, 0, 0, 0].tolist())[0] == (200 if labelled else min(val[0][:, 0, 0, 0]))
    assert len(val[1]) == 4
    assert (val[2] >= 0).all()
    told = "No sample of the test split has a label: it is left out of what needs labels."
    assert (told in data.notes) != labelled


def test_training_images_without_labels_have_no_classes_though_others_do(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{split}_images": rng.integers(0, 256, (4, 6, 6), dtype=np.uint8) for split in ("train", "val")}
    np.savez(tmp_path / "set.npz", **arrays, val_labels=[0, 1, 1, 0])
    data = module(f"npz:{tmp_path}/set.npz")
    assert (data.num_samples, data.num_classes, data.has_labels("val")) == (4, None, True)


@pytest.mark.parametrize(
    ("source", "options", "kinds"),
    [
        ("digits", {"layout": "flat"}, "folder:"),
        ("digits", {"image_column": "image"}, "csv: and hf:"),
        ("folder:photos", {"label_column": "label"}, "csv: and hf:"),
    ],
)
def test_an_option_of_reading_that_a_source_does_not_use_raises_an_error(source, options, kinds):
    with pytest.raises(
        ConfigurationError, match=rf"`read\.{next(iter(options))}` to be left out .* only the sources {kinds}"
    ):
        module(source, read=ReadConfig(**options))


def test_the_hold_out_leaves_something_to_train_on(tmp_path):
    save_tree(tmp_path, count=2)
    assert len(opened(f"folder:{tmp_path}", holdout=0.9).train) >= 1


def test_a_flat_folder_is_unlabelled_and_held_together(tmp_path):
    for i in range(5):
        save(tmp_path / f"{i}.png", i)
    source = opened(f"folder:{tmp_path}", holdout=0.4)
    assert (colours(source.train), labels(source.train)) == ([0, 1, 2, 3, 4], [-1] * 5)
    assert (source.val, source.test, source.class_names) == (None, None, None)
    data = module(f"folder:{tmp_path}")
    assert (data.num_samples, data.num_classes, data.class_names) == (5, None, None)
    assert list(data.eval_batches("val")) == []
    for loader in (data.val_dataloader, data.test_dataloader):
        with pytest.raises(DataError, match=r"no (val|test) split: it has \['train'\]"):
            loader()


def test_files_below_a_class_folder_belong_to_it(tmp_path):
    save(tmp_path / "cat" / "wild" / "far" / "a.png", 1)
    save(tmp_path / "cat" / "b.png", 2)
    save(tmp_path / "dog" / "c.png", 3)
    source = opened(f"folder:{tmp_path}", holdout=0.0, read=ReadConfig(layout="classes"))
    assert sorted(zip(colours(source.train), labels(source.train), strict=True)) == [(1, 0), (2, 0), (3, 1)]


def test_files_are_in_natural_order(tmp_path):
    names = ["img1.png", "img2.png", "IMG3.png", "img10.png", "img20.png", "img100.png"]
    for value, name in enumerate(names):
        save(tmp_path / name, value)
    assert opened(f"folder:{tmp_path}").train.names == names
    assert colours(opened(f"folder:{tmp_path}").train) == list(range(6))


def test_hidden_folders_are_ignored(tmp_path):
    save_tree(tmp_path)
    save(tmp_path / ".ipynb_checkpoints" / "img0-checkpoint.png")
    source = opened(f"folder:{tmp_path}", holdout=0.0)
    assert (list(source.class_names), len(source.train)) == (["cat", "dog"], 6)


def test_links_to_class_folders_are_followed(tmp_path):
    save_tree(tmp_path / "real")
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "real" / name)
    assert len(opened(f"folder:{tmp_path}/links", holdout=0.0).train) == 6


def test_a_broken_link_is_no_image(tmp_path):
    save_tree(tmp_path, count=3)
    (tmp_path / "cat" / "img9.png").symlink_to(tmp_path / "gone.png")
    assert module(f"folder:{tmp_path}", holdout=0.0).num_samples == 6


def test_a_link_to_a_folder_above_does_not_multiply_images(tmp_path):
    save_tree(tmp_path, count=3)
    (tmp_path / "cat" / "up").symlink_to(tmp_path / "cat")
    assert len(opened(f"folder:{tmp_path}", holdout=0.0).train) == 6


def test_a_folder_of_two_names_is_found_under_both_whatever_the_order(tmp_path):
    for name, target in (("ant", "cat"), ("zebra", "cat")):  # before and after it in the alphabet
        (tmp_path / name).symlink_to(tmp_path / target)
    save_tree(tmp_path, ("cat",), count=2)
    source = opened(f"folder:{tmp_path}", holdout=0.0)
    assert list(source.class_names) == ["ant", "cat", "zebra"]
    assert (colours(source.train), labels(source.train)) == ([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2])


def test_links_in_a_circle_end(tmp_path):
    save_tree(tmp_path, ("a", "b"), count=1)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert len(opened(f"folder:{tmp_path}", holdout=0.0).train) in (2, 4)  # links followed or not, but no further


def test_a_hidden_folder_beside_the_splits_is_ignored(tmp_path):
    save_tree(tmp_path / "train")
    save(tmp_path / ".thumbnails" / "0.png")
    assert len(opened(f"folder:{tmp_path}", holdout=0.0).train) == 6


def test_a_class_called_train_is_not_silently_taken_for_the_training_split(tmp_path):
    save_tree(tmp_path, ("bus", "plane", "train"))
    with contextlib.suppress(DataError):  # refusing is as good as understanding
        assert list(opened(f"folder:{tmp_path}", holdout=0.0).class_names) == ["bus", "plane", "train"]


@pytest.mark.parametrize("image_size", [None, 4])
def test_images_of_mixed_modes_become_rgb(tmp_path, image_size):
    modes = ["RGB", "L", "RGBA", "P", "1"]
    for n, mode in enumerate(modes):
        save(tmp_path / f"{n}.png", 255, mode=mode)
    save(tmp_path / "5.jpg", 255, mode="CMYK")
    save(tmp_path / "6.bmp", 255)
    data = module(f"folder:{tmp_path}", image_size=image_size)
    assert data.num_samples == 7
    for image in data.raw_samples("train", range(7)).input:
        assert (image.shape, image.dtype) == ((3, 6, 6), torch.uint8)  # 1.5 times 4, or as they are
        assert int(image.min()) >= 250


def test_a_half_transparent_color_of_a_palette_is_composited_on_white(tmp_path):
    save(tmp_path / "0.png", 7)
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "1.png", transparency=bytes([0, 128]))
    assert colours(opened(f"folder:{tmp_path}").train) == [7, pytest.approx(9 * 128 / 255 + 127, abs=1)]


def test_mixed_sizes_are_refused_with_the_cure_and_the_cure_works(tmp_path):
    save(tmp_path / "0.png", 10)
    save(tmp_path / "1.png", 20)
    odd = save(tmp_path / "2.png", 30, size=(9, 7))
    dataset = opened(f"folder:{tmp_path}").train
    assert colours(dataset.subset([0, 1])) == [10, 20]
    with pytest.raises(DataError) as error:
        dataset[2]
    for part in ("Image 2", str(odd), "(3, 7, 9)", "image 0 has (3, 6, 6)", "`image_size`"):
        assert part in str(error.value)
    with pytest.raises(DataError, match="`image_size`"):
        module(f"folder:{tmp_path}")
    for keep in (True, False):
        cured = module(f"folder:{tmp_path}", image_size=4, in_memory=keep)
        inputs, index, _ = everything(cured.predict_dataloader())
        assert (inputs.shape, index.tolist(), cured.input_shape) == ((3, 3, 4, 4), [0, 1, 2], (3, 4, 4))
        assert inputs[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_evaluation_sees_the_middle_of_the_image_and_memory_holds_all_of_it(tmp_path):
    image = np.zeros((4, 12, 3), dtype=np.uint8)
    image[:, 4:8] = 200  # the central square
    for n in range(2):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    for keep in (True, False):
        data = module(f"folder:{tmp_path}", image_size=4, in_memory=keep, num_workers=0)
        mean, std = (torch.tensor(data.state_dict()[name])[:, None, None] for name in ("mean", "std"))
        seen = next(data.eval_batches("train")).input * std + mean
        assert ((seen * 255 - 200).abs() < 1e-3).all()
        assert (data.raw_samples("train", [0]).input[0] == torch.from_numpy(image).permute(2, 0, 1)).all()
    assert module(f"folder:{tmp_path}", image_size=16).input_shape == (3, 16, 16)


def test_an_unreadable_file_is_refused_with_index_path_and_cure(tmp_path):
    save(tmp_path / "0.png", 1)
    bad = tmp_path / "1.png"
    bad.write_bytes(b"not an image")
    save(tmp_path / "2.png", 2)
    dataset = opened(f"folder:{tmp_path}").train
    with pytest.raises(DataError) as error:
        dataset[1]
    for part in ("Image 1", str(bad), "cannot be read", "`drop_unreadable`"):
        assert part in str(error.value)
    with pytest.raises(DataError, match="Image 1 "):
        module(f"folder:{tmp_path}", in_memory=True)
    batches = iter(DataLoader(IndexedDataset(dataset), 2, num_workers=1, collate_fn=identity_collate))
    with pytest.raises(DataError) as in_worker:
        list(batches)
    list(batches)  # ends the worker at once; after an exception the garbage collector would wait for it for 5 s
    assert str(in_worker.value) == str(error.value)  # the same sentence


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_truncated_file_is_unreadable(tmp_path, ending):
    whole = save(tmp_path / f"0.{ending}", size=(64, 64)).read_bytes()
    (tmp_path / f"1.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="Image 1 "):
        opened(f"folder:{tmp_path}").train[1]


def test_unreadable_files_are_dropped_before_n_is_fixed_if_asked_with_a_list(tmp_path):
    for n in range(6):
        save(tmp_path / "train" / f"{n}.png", n)
    bad = [tmp_path / "train" / "1.png", tmp_path / "train" / "4.png"]
    for path in bad:
        path.write_bytes(b"broken")
    save(tmp_path / "val" / "0.png", 100)
    save(tmp_path / "val" / "1.png").write_bytes(b"")
    data = DIETDataModule(f"folder:{tmp_path}", batch_size=2, num_workers=0, drop_unreadable=True)
    with pytest.warns(UserWarning, match="Left out") as caught:
        assert data.num_samples == 4
    train, val = (str(record.message) for record in caught if record.category is UserWarning)
    assert "Left out 2 unreadable image(s) of the train split" in train
    assert f"1 ({bad[0]}): " in train
    assert f"4 ({bad[1]}): " in train
    assert "Left out 1 unreadable image(s) of the val split" in val
    inputs, index, _ = everything(data.predict_dataloader())
    assert index.tolist() == [0, 1, 2, 3]
    assert inputs[:, 0, 0, 0].tolist() == [0, 2, 3, 5]
    assert everything(data.val_dataloader())[0][:, 0, 0, 0].tolist() == [100]


def test_no_warning_where_all_files_are_readable(tmp_path):
    save_tree(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module(f"folder:{tmp_path}", drop_unreadable=True, holdout=0.0).num_samples == 6


def test_an_image_beyond_pillows_limit_is_an_unreadable_one(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # a file may claim any size
    save(tmp_path / "0.png")
    with pytest.raises(DataError, match="Image 0 "):
        opened(f"folder:{tmp_path}").train[0]


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    file = save(tmp_path / "image.png")
    for missing, message in (
        (tmp_path / "nowhere", "does not exist"),
        (file, "is a file: put all images into a folder"),
    ):
        with pytest.raises(DataError, match=message) as error:
            opened(f"folder:{missing}")
        assert str(missing) in str(error.value)
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty' holds no images.*\.jpg or \.png"):
        opened(f"folder:{tmp_path}/empty")


def test_an_empty_validation_folder_is_refused(tmp_path):
    save_tree(tmp_path / "train")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val' holds no images"):
        opened(f"folder:{tmp_path}")


def test_the_fingerprint_of_a_folder_survives_a_move_and_knows_other_files(tmp_path):
    first = save_tree(tmp_path / "first")
    second = shutil.copytree(first, tmp_path / "moved" / "second")
    kept = opened(f"folder:{first}", holdout=0.0).train.fingerprint()
    assert opened(f"folder:{second}", holdout=0.0).train.fingerprint() == kept
    assert opened(f"folder:{first}", holdout=0.2).train.fingerprint() != kept
    assert opened(f"folder:{first}", holdout=0.0, image_size=4).train.fingerprint() != kept
    (second / "cat" / "img1.png").rename(second / "cat" / "img7.png")
    assert opened(f"folder:{second}", holdout=0.0).train.fingerprint() != kept
    state = {keep: module(f"folder:{first}", in_memory=keep).state_dict() for keep in (True, False)}
    for name in ("fingerprint", "num_samples"):
        assert state[True][name] == state[False][name]


# -- npz ---------------------------------------------------------------------------------------------------------------


def save_npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def gray_arrays(count, start=0):
    """MedMNIST's layout: gray images (N, 28, 28) and labels (N, 1); image i has the colour start + i."""
    colour = np.arange(start, start + count, dtype=np.uint8)
    return np.broadcast_to(colour[:, None, None], (count, 28, 28)).copy(), (colour % 3)[:, None]


def test_npz_with_medmnists_keys(tmp_path):
    arrays = {}
    for part, count, start in (("train", 6, 0), ("val", 3, 100), ("test", 4, 200)):
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = gray_arrays(count, start)
    name = save_npz(tmp_path / "some.npz", **arrays)
    source = opened(name)
    for part, colour in (("train", [0, 1, 2, 3, 4, 5]), ("val", [100, 101, 102]), ("test", [200, 201, 202, 203])):
        dataset = getattr(source, part)
        assert colours(dataset) == colour
        assert labels(dataset) == [c % 3 for c in colour]
        assert dataset.inputs.dtype == torch.uint8
    data = module(name)
    assert (data.num_samples, data.input_shape, data.num_classes, data.class_names) == (6, (1, 28, 28), 3, None)


def test_npz_of_rgb_images_puts_the_channels_first(tmp_path):
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (4, 28, 30, 3), dtype=np.uint8)
    for name, arrays in {"last": stored, "first": stored.transpose(0, 3, 1, 2)}.items():
        data = module(save_npz(tmp_path / f"{name}.npz", train_images=arrays))
        found = data.raw_samples("train", range(4)).input
        assert np.array_equal(found.numpy(), stored.transpose(0, 3, 1, 2))


def test_npz_without_labels_or_other_splits(tmp_path):
    stored, _ = gray_arrays(4)
    name = save_npz(tmp_path / "bare.npz", train_images=stored)
    source = opened(name)
    assert (labels(source.train), source.val, source.test) == ([-1] * 4, None, None)
    assert module(name).num_classes is None


@pytest.mark.parametrize(
    "keys",
    [
        ("images", "labels", "valid_images", "valid_labels", "testing_images", "testing_labels"),
        ("train_image", "train_label", "validation_images", "validation_labels", "test_img", "test_targets"),
        ("x", "y", "val_x", "val_y", "test_X", "test_Y"),
    ],
)
def test_npz_with_other_spellings_of_the_keys(tmp_path, keys):
    arrays = [array for count, start in ((6, 0), (3, 100), (4, 200)) for array in gray_arrays(count, start)]
    name = save_npz(tmp_path / "some.npz", **dict(zip(keys, arrays, strict=True)))
    source = opened(name)
    for part, colour in (("train", range(6)), ("val", range(100, 103)), ("test", range(200, 204))):
        assert colours(getattr(source, part)) == list(colour)
        assert labels(getattr(source, part)) == [c % 3 for c in colour]
    spelt = {f"{part}_{kind}" for part in ("train", "val", "test") for kind in ("images", "labels")}
    assert len(source.notes) == len(set(keys) - spelt)
    assert f"Key {keys[0]!r} is read as train_images." in source.notes


def test_npz_keys_that_are_ignored_are_named_and_two_of_one_meaning_raise_an_error(tmp_path):
    stored, classes = gray_arrays(4)
    name = save_npz(tmp_path / "a.npz", train_images=stored, val_labels=classes, masks=stored, holdout_images=stored)
    source = opened(name)
    assert (labels(source.train), source.val) == ([-1] * 4, None)
    assert source.notes[0].startswith("Keys ['holdout_images', 'masks', 'val_labels'] are ignored")
    with pytest.raises(DataError, match=r"Keys 'labels' and 'train_labels' .* both mean train_labels"):
        opened(save_npz(tmp_path / "b.npz", train_images=stored, labels=classes, train_labels=classes))


def test_npz_takes_val_for_a_missing_test_and_test_for_a_missing_val(tmp_path):
    stored, _ = gray_arrays(4)
    for part in ("val", "test"):
        name = save_npz(tmp_path / f"{part}.npz", train_images=stored, **{f"{part}_images": stored[:2]})
        assert_one_split_stands_in_for_the_other(module(name), 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npz_of_signals(tmp_path, dtype):
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(5, 2, 40)).astype(dtype)
    name = save_npz(tmp_path / "signals.npz", train_images=stored, train_labels=np.arange(5))
    data = module(name, strength=0)
    assert (data.input_shape, data.num_classes) == ((2, 40), 5)
    batches = torch.cat([batch.input for batch in data.eval_batches("train")])
    assert batches.dtype == torch.float32
    np.testing.assert_array_equal(batches.numpy(), stored.astype(np.float32))
    with pytest.raises(ConfigurationError, match=r"\(2, 40\).*`strength` to 0"):
        module(name)


def test_npz_without_train_images_is_refused_with_its_keys(tmp_path):
    with pytest.raises(DataError) as error:
        opened(save_npz(tmp_path / "x.npz", x_train=np.zeros(3), y_train=np.zeros(3)))
    for part in ("x.npz", "['x_train', 'y_train']", "train_images"):
        assert part in str(error.value)


def test_npz_of_pickled_objects_is_refused(tmp_path):
    stored = np.array([{"a": 1}, None], dtype=object)
    with pytest.raises(DataError, match=r"x\.npz' cannot be read as an \.npz of plain arrays.*pickle"):
        opened(save_npz(tmp_path / "x.npz", train_images=stored))


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "npy", "missing", "folder"])
def test_a_damaged_npz_is_refused(tmp_path, damage):
    path = tmp_path / "x.npz"
    save_npz(path, train_images=np.zeros((50, 8, 8), dtype=np.uint8))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage in ("empty", "text"):
        path.write_text("" if damage == "empty" else "hello")
    else:
        path.unlink()
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(DataError, match=r"x\.npz' cannot be read"):
        opened(f"npz:{path}")


@pytest.mark.parametrize(
    ("name", "said"), [("a.png", "write folder:"), ("a.csv", "write csv:"), ("a.npy", "numpy.savez")]
)
def test_another_file_than_an_npz_is_refused_with_what_to_write(tmp_path, name, said):
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, np.zeros(3))
    else:
        Image.new("RGB", (4, 4)).save(path, "PNG")
    with pytest.raises(DataError, match=rf"a\..* cannot be read as an \.npz .*{said}") as error:
        opened(f"npz:{path}")
    assert "allow_pickle" not in str(error.value)


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_of_npz_images_that_are_not_finite_are_named(tmp_path, part, value):
    stored = np.random.default_rng(0).random((9, 3, 8, 8), dtype=np.float32)
    damaged = stored.copy()
    damaged[5, 1, 2, 3] = value
    name = save_npz(tmp_path / "x.npz", **{"train_images": stored, f"{part}_images": damaged})
    with pytest.raises(DataError, match=rf"Sample 5 of the {part} split has values that are NaN"):
        module(name)


def test_a_damaged_npz_is_closed(tmp_path):
    path = tmp_path / "x.npz"
    save_npz(path, train_images=np.zeros((50, 8, 8), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1000])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(DataError):
            opened(f"npz:{path}")
        gc.collect()
    assert [record for record in caught if record.category is ResourceWarning] == []


def test_a_compressed_npz_with_flipped_bits_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, train_images=np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8))
    damaged = bytearray(path.read_bytes())
    damaged[100:160] = bytes(byte ^ 0xFF for byte in damaged[100:160])
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"x\.npz' cannot be read"):
        opened(f"npz:{path}")


@pytest.mark.parametrize("stored", [np.array(["a", "b"]), np.array(3)], ids=["text", "scalar"])
def test_npz_of_what_is_no_array_of_samples_is_refused_by_file(tmp_path, stored):
    with pytest.raises(DataError, match=r"x\.npz"):
        opened(save_npz(tmp_path / "x.npz", train_images=stored))


def test_npz_written_on_a_big_endian_machine(tmp_path):
    stored = np.arange(4 * 64).reshape(4, 1, 8, 8).astype(">f4")
    train = opened(save_npz(tmp_path / "x.npz", train_images=stored)).train
    np.testing.assert_array_equal(train.inputs.numpy(), stored)


@pytest.mark.parametrize(
    ("column", "expected", "said"),
    [
        (np.zeros((4, 14), dtype=np.uint8), None, "labels of shape (n, 14) are multi-label"),
        (np.zeros(4), [0, 0, 0, 0], "read as integers"),
        (np.array(list("badc")), [1, 0, 3, 2], "labels are text"),
    ],
    ids=["multi-label", "float", "text"],
)
def test_npz_with_labels_of_other_kinds_says_what_they_are(tmp_path, column, expected, said):
    stored, _ = gray_arrays(4)
    data = module(save_npz(tmp_path / "x.npz", train_images=stored, train_labels=column))
    assert said in " ".join(data.notes).lower()
    assert data.train_labels.tolist() == (expected or [-1] * 4)
    assert data.num_classes == (None if expected is None else max(expected) + 1)


@pytest.mark.parametrize(
    ("part", "wrong"), [("train", np.array(3)), ("val", np.zeros((0, 1), dtype=int))], ids=["scalar", "empty split"]
)
def test_npz_with_labels_of_odd_shapes_is_refused(tmp_path, part, wrong):
    stored, _ = gray_arrays(4)
    arrays = {"train_images": stored, f"{part}_images": stored[: wrong.shape[0] if wrong.shape else None]}
    with pytest.raises(DataError):
        module(save_npz(tmp_path / "x.npz", **arrays, **{f"{part}_labels": wrong}))


def test_npz_with_too_few_labels_is_refused(tmp_path):
    stored, _ = gray_arrays(4)
    with pytest.raises(DataError, match="3 labels for 4 samples"):
        opened(save_npz(tmp_path / "x.npz", train_images=stored, train_labels=np.arange(3)))


# -- Hugging Face ------------------------------------------------------------------------------------------------------

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")


def png(value, mode="RGB"):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 6), (value, value, value)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def save_parquet(path, values, names=("cat", "dog"), image="image", label="label", metadata=True, mode="RGB"):
    """The layout of Hugging Face's image sets: struct<bytes, path>, int64 labels, features in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = [value if isinstance(value, bytes) else png(value, mode) for value in values]
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array([{"bytes": b, "path": f"{n}.png"} for n, b in enumerate(encoded)], struct_type)}
    features = {image: {"_type": "Image"}}
    if label is not None:
        columns[label] = pa.array([n % len(names) for n in range(len(values))], pa.int64())
        features[label] = {"names": list(names), "_type": "ClassLabel"}
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pa.parquet.write_table(table, path)


@pytest.fixture
def cache(tmp_path):
    """Where Hugging Face's copies go, so that nothing is left in the home folder."""
    return str(tmp_path / "cache")


@pytest.mark.parametrize("layout", ["{}.parquet", "data/{}-00000-of-00001.parquet", "{}/0000.parquet"])
def test_parquet_with_a_test_split_that_stands_in_for_val(tmp_path, cache, layout):
    save_parquet(tmp_path / "set" / layout.format("train"), [0, 1, 2, 3, 4])
    save_parquet(tmp_path / "set" / layout.format("test"), [200, 201])
    source = opened(f"hf:parquet:{tmp_path}/set", root=cache)
    assert (colours(source.train), labels(source.train)) == ([0, 1, 2, 3, 4], [0, 1, 0, 1, 0])
    assert (colours(source.test), labels(source.test)) == ([200, 201], [0, 1])
    assert source.val is None
    assert list(source.class_names) == ["cat", "dog"]
    data = module(f"hf:parquet:{tmp_path}/set", root=cache)
    assert_one_split_stands_in_for_the_other(data, 2)
    assert (data.num_samples, data.input_shape, data.num_classes) == (5, (3, 6, 6), 2)
    assert (tmp_path / "cache").is_dir()


def test_parquet_with_a_validation_split_and_several_files_a_split(tmp_path, cache):
    save_parquet(tmp_path / "set" / "train-00000-of-00002.parquet", [0, 1])
    save_parquet(tmp_path / "set" / "train-00001-of-00002.parquet", [2, 3])
    save_parquet(tmp_path / "set" / "validation.parquet", [100])
    source = opened(f"hf:parquet:{tmp_path}/set", root=cache)
    assert (colours(source.train), colours(source.val), source.test) == ([0, 1, 2, 3], [100], None)


def test_one_parquet_file_is_all_for_training(tmp_path, cache):
    save_parquet(tmp_path / "any.parquet", [0, 1, 2], mode="L")
    source = opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)
    assert (colours(source.train), source.val, source.test) == ([0, 1, 2], None, None)
    assert module(f"hf:parquet:{tmp_path}/any.parquet", root=cache).input_shape == (1, 6, 6)
    gray = module(f"hf:parquet:{tmp_path}/any.parquet", root=cache, read=ReadConfig(color="rgb"))
    assert gray.input_shape == (3, 6, 6)  # three equal channels


def test_parquet_without_labels(tmp_path, cache):
    save_parquet(tmp_path / "any.parquet", [0, 1, 2], label=None)
    source = opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)
    assert (labels(source.train), source.class_names, source.train.labels) == ([-1] * 3, None, None)
    assert module(f"hf:parquet:{tmp_path}/any.parquet", root=cache).num_classes is None


def test_parquet_without_the_features_of_hugging_face_goes_by_the_names_of_the_columns(tmp_path, cache):
    save_parquet(tmp_path / "any.parquet", [5, 6, 7], image="img", label="fine_label", metadata=False)
    source = opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)
    assert (colours(source.train), labels(source.train)) == ([5, 6, 7], [0, 1, 0])
    assert source.class_names is None
    assert module(f"hf:parquet:{tmp_path}/any.parquet", root=cache).num_classes == 2


def test_parquet_with_columns_of_other_names_goes_by_their_features(tmp_path, cache):
    save_parquet(tmp_path / "any.parquet", [5, 6, 7], image="photo", label="animal")
    source = opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)
    assert (colours(source.train), labels(source.train)) == ([5, 6, 7], [0, 1, 0])
    assert list(source.class_names) == ["cat", "dog"]


def test_parquet_without_images_is_refused_with_its_columns(tmp_path, cache):
    pa.parquet.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "any.parquet")
    with pytest.raises(DataError, match=r"columns \['label', 'text'\], but no column of images"):
        opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: save_parquet(path / "test.parquet", [1])]
)
def test_parquet_without_a_training_file_is_refused(tmp_path, cache, make):
    make(tmp_path / "set")
    with pytest.raises(DataError, match=r"set' has no training file.*train\*\.parquet"):
        opened(f"hf:parquet:{tmp_path}/set", root=cache)


def test_a_damaged_parquet_file_is_refused(tmp_path, cache):
    (tmp_path / "any.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"any\.parquet' cannot be loaded"):
        opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)


def test_an_unreadable_image_in_parquet_is_refused_by_index_or_dropped(tmp_path, cache):
    save_parquet(tmp_path / "any.parquet", [1, b"broken", 3])
    name = f"hf:parquet:{tmp_path}/any.parquet"
    with pytest.raises(DataError, match="Image 1 cannot be read"):
        module(name, root=cache)
    with pytest.warns(UserWarning, match=r"Left out 1 unreadable image\(s\) of the train split"):
        data = module(name, root=cache, drop_unreadable=True)
    assert everything(data.predict_dataloader())[0][:, 0, 0, 0].tolist() == [1, 3]


def test_parquet_with_some_labels_missing(tmp_path, cache):
    struct_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": png(n), "path": None} for n in range(3)], struct_type)
    pa.parquet.write_table(pa.table({"image": image, "label": pa.array([1, None, 0])}), tmp_path / "any.parquet")
    for keep in (True, False):
        data = module(f"hf:parquet:{tmp_path}/any.parquet", root=cache, in_memory=keep)
        assert everything(data.predict_dataloader())[2].tolist() == [1, -1, 0]
        assert data.num_classes == 2


def test_parquet_below_a_folder_with_brackets_in_its_name(tmp_path, cache):
    save_parquet(tmp_path / "set [v1]" / "train.parquet", [0, 1])
    assert len(opened(f"hf:parquet:{tmp_path}/set [v1]", root=cache).train) == 2


def test_a_column_called_image_that_holds_none_is_refused(tmp_path, cache):
    pa.parquet.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), tmp_path / "any.parquet")
    with pytest.raises(DataError):
        opened(f"hf:parquet:{tmp_path}/any.parquet", root=cache)


def test_a_missing_datasets_package_is_refused_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"'hf:some/set' needs.*pip install 'diet-lightning\[hf\]'"):
        opened("hf:some/set")


# -- torchvision -------------------------------------------------------------------------------------------------------


def save_mnist(root, name="MNIST", train=5, test=3):
    """The raw idx files; image i has the colour i, in the test split 100 + i."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for part, count, start in (("train", train, 0), ("t10k", test, 100)):
        colour = np.arange(start, start + count, dtype=np.uint8)
        pixels = np.broadcast_to(colour[:, None, None], (count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + (colour % 10).tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_a_torchvision_set_with_a_train_flag(tmp_path, name):
    save_mnist(tmp_path, name)
    source = opened(f"torchvision:{name}", root=str(tmp_path))
    assert (colours(source.train), labels(source.train)) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert (colours(source.test), labels(source.test)) == ([100, 101, 102], [0, 1, 2])
    assert source.val is None
    assert list(source.class_names) == getattr(torchvision.datasets, name).classes
    data = module(f"torchvision:{name}", root=str(tmp_path))
    assert (data.num_samples, data.num_classes, data.input_shape) == (5, 10, (1, 28, 28))


def test_torchvision_reads_from_data_by_default(tmp_path):
    save_mnist(tmp_path / "data")  # the test runs in tmp_path
    assert len(opened("torchvision:MNIST").train) == 5


def test_a_torchvision_set_with_train_and_test_splits(tmp_path):
    base = tmp_path / "food-101"
    for split, start, count in (("train", 0, 3), ("test", 200, 1)):
        metadata = {}
        for c, name in enumerate(("apple_pie", "waffles")):
            metadata[name] = [f"{name}/{split}{i}" for i in range(count)]
            for i, file in enumerate(metadata[name]):
                save(base / "images" / f"{file}.jpg", start + 10 * (c * count + i))
        (base / "meta").mkdir(exist_ok=True)
        (base / "meta" / f"{split}.json").write_text(json.dumps(metadata))
    data = module("torchvision:Food101", root=str(tmp_path))
    inputs, index, label = everything(data.predict_dataloader())
    assert index.tolist() == list(range(6))
    assert label.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(inputs[:, 0, 0, 0].numpy(), [0, 10, 20, 30, 40, 50], atol=2)  # JPEG
    assert (data.num_classes, list(data.class_names)) == (2, ["apple_pie", "waffles"])
    assert everything(data.val_dataloader())[2].tolist() == [0, 1]


def test_a_torchvision_set_with_a_validation_split_of_its_own(tmp_path):
    base = tmp_path / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for split, values in (("train", [0, 10]), ("val", [100, 110]), ("test", [200, 210])):
        files = [f"{name}/{value}.png" for name, value in zip(("banded", "zigzagged"), values, strict=True)]
        for file, value in zip(files, values, strict=True):
            save(base / "images" / file, value)
        (base / "labels" / f"{split}1.txt").write_text("\n".join(files) + "\n")
    source = opened("torchvision:DTD", root=str(tmp_path))
    assert [colours(part) for part in (source.train, source.val, source.test)] == [[0, 10], [100, 110], [200, 210]]
    assert list(source.class_names) == ["banded", "zigzagged"]


def save_gtsrb(root):
    """A set that says neither its classes nor, outside its samples, its labels."""
    for n in range(4):
        save(root / "gtsrb" / "GTSRB" / "Training" / f"0000{n % 2}" / f"{n}.ppm", n)
    save(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "0.ppm", 200)
    (root / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\n0.ppm;1\n")


@pytest.mark.parametrize(
    "keep",
    [True, False],
)
def test_num_classes_does_not_depend_on_where_images_are_kept(tmp_path, keep):
    save_gtsrb(tmp_path)
    data = module("torchvision:GTSRB", root=str(tmp_path), in_memory=keep)
    assert sorted(everything(data.predict_dataloader())[2].tolist()) == [0, 0, 1, 1]
    assert data.num_classes == 2


@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize(("target_type", "expected"), [("attr", [-1] * 4), ("identity", [0, 0, 1, 1])])
def test_a_torchvision_set_of_several_labels_per_image(tmp_path, monkeypatch, target_type, expected):
    base = tmp_path / "celeba"
    for n in range(6):
        save(base / "img_align_celeba" / f"{n}.jpg", 10 * n)
    (base / "list_eval_partition.txt").write_text("".join(f"{n}.jpg {0 if n < 4 else 2}\n" for n in range(6)))
    (base / "identity_CelebA.txt").write_text("".join(f"{n}.jpg {1000 * (n // 2)}\n" for n in range(6)))
    for name, columns in {"bbox": 4, "landmarks_align": 10, "attr": 3}.items():
        header = " ".join(f"c{i}" for i in range(columns))
        rows = "".join(
            f"{n}.jpg " + " ".join("1" if (n + i) % 2 else "-1" for i in range(columns)) + "\n" for n in range(6)
        )
        (base / f"list_{name}_celeba.txt").write_text(f"6\n{header}\n{rows}")
    celeba = torchvision.datasets.CelebA
    monkeypatch.setattr(celeba, "_check_integrity", lambda self: True)
    monkeypatch.setattr(celeba.__init__, "__defaults__", ("train", target_type, None, None, False))
    data = module("torchvision:CelebA", root=str(tmp_path))
    assert data.train_labels.tolist() == expected
    assert everything(data.predict_dataloader())[2].tolist() == expected
    assert ("multi-label" in " ".join(data.notes)) == (target_type == "attr")
    assert data.num_classes == (None if target_type == "attr" else 3)


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "Food101", "DTD", "EMNIST", "SVHN"])
def test_missing_torchvision_data_are_refused_with_root_and_cure(tmp_path, name):
    with pytest.raises(DataError) as error:
        opened(f"torchvision:{name}", root=str(tmp_path / "nothing"))
    for part in (f"torchvision's {name}", f"root={str(tmp_path / 'nothing')!r}", "set `download` to true"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "name", ["NoSuchSet", "Caltech101", "FakeData", "ImageFolder", "VisionDataset", "folder", "utils", "_X"]
)
def test_what_is_no_torchvision_set_with_a_train_and_a_test_split_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"'torchvision:{name}': expected .*from_datasets"):
        opened(f"torchvision:{name}")


@pytest.mark.parametrize("name", ["PhotoTour", "UCF101", "Kinetics"])
def test_torchvision_sets_that_need_more_arguments_are_refused(tmp_path, name):
    with pytest.raises((ConfigurationError, DataError)):
        opened(f"torchvision:{name}", root=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "download"),
    [
        ("FashionMNIST", True),
        ("FashionMNIST", False),
        ("EMNIST", True),
        ("QMNIST", True),
    ],
)
def test_torchvision_downloads_only_if_asked(tmp_path, monkeypatch, name, download):
    asked = []
    monkeypatch.setattr(getattr(torchvision.datasets, name), "download", lambda self: asked.append(self.train))
    with pytest.raises(DataError):
        opened(f"torchvision:{name}", root=str(tmp_path), download=download)
    assert asked == ([True] if download else [])


# -- subset, memory, workers -------------------------------------------------------------------------------------------


class Pairs(Dataset):
    """A data set of no kind that the package knows."""

    def __init__(self, count=12):
        self.inputs = images(count)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], index % 3


@pytest.mark.parametrize("kind", ["array", "images", "images in memory", "tensors", "any"])
def test_a_subset_has_its_size_its_own_indices_and_follows_the_seed(tmp_path, kind):
    if kind == "array":
        stored, label = gray_arrays(12)
        source, options = save_npz(tmp_path / "x.npz", train_images=stored, train_labels=label), {}
    elif kind.startswith("images"):
        source, options = (
            f"folder:{save_tree(tmp_path / 'tree', count=6)}",
            {"holdout": 0.0, "in_memory": "memory" in kind},
        )
    else:
        given = {"tensors": TensorDataset(images(12), torch.arange(12) % 3), "any": Pairs()}[kind]
        source, options = None, {}

    def make(**more):
        common = {"batch_size": 2, "num_workers": 0, **options, **more}
        data = DIETDataModule(source, **common) if source else DIETDataModule.from_datasets(given, **common)
        data.setup()
        return data

    if kind in ("array", "images", "images in memory"):  # the rest is kept or read as the whole would be
        assert type(make(subset=5)._splits["train"].dataset) is type(make()._splits["train"].dataset)
    whole = everything(make().predict_dataloader())
    first, again, other = (everything(make(subset=5, seed=seed).predict_dataloader()) for seed in (0, 0, 1))
    assert make(subset=5).num_samples == 5
    assert first[1].tolist() == [0, 1, 2, 3, 4]  # not the parent's indices
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    known = {image.numpy().tobytes(): n for n, image in enumerate(whole[0])}
    rows = [known[image.numpy().tobytes()] for image in first[0]]
    assert rows == sorted(set(rows))  # in the parent's order, none twice
    assert first[2].tolist() == whole[2][rows].tolist()
    assert make(subset=5).state_dict() != make(subset=5, seed=1).state_dict()
    assert everything(make(subset=12).predict_dataloader())[1].tolist() == list(range(12))
    with pytest.raises(ConfigurationError, match="`subset` to be at most the 12 training samples, but got 13"):
        make(subset=13)


def test_a_subset_is_of_the_training_split_alone(tmp_path):
    save_tree(tmp_path / "train", count=4)
    save_tree(tmp_path / "val", count=3, start=100)
    data = module(f"folder:{tmp_path}", subset=3)
    assert data.num_samples == 3
    assert everything(data.val_dataloader())[0][:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105]


@pytest.mark.parametrize("case", ["subset", "validation"])
def test_classes_are_counted_over_all_that_is_measured(tmp_path, case):
    stored, _ = gray_arrays(20)
    train = np.arange(20) if case == "subset" else np.arange(20) % 19
    name = save_npz(
        tmp_path / "x.npz", train_images=stored, train_labels=train, val_images=stored, val_labels=np.arange(20)
    )
    assert module(name, subset=3 if case == "subset" else None, seed=1).num_classes == 20


@pytest.mark.parametrize("kind", ["folder", "parquet", "torchvision"])
def test_batches_are_the_same_in_memory_or_not_and_with_workers_or_without(tmp_path, cache, kind):
    if kind == "folder":
        save_tree(tmp_path / "set" / "train", count=4)
        save_tree(tmp_path / "set" / "val", count=2, start=100)
        source, root = f"folder:{tmp_path}/set", None
    elif kind == "parquet":
        save_parquet(tmp_path / "set" / "train.parquet", range(8))
        save_parquet(tmp_path / "set" / "test.parquet", [100, 101, 102])
        source, root = f"hf:parquet:{tmp_path}/set", cache
    else:
        save_mnist(tmp_path, train=8)
        source, root = "torchvision:MNIST", str(tmp_path)
    batches = {}
    for keep, workers in ((True, 0), (False, 0), (True, 2), (False, 2)):
        if workers and keep and kind != "folder":
            continue  # workers over arrays are the same code for every kind
        data = module(
            source,
            root=root,
            in_memory=keep,
            num_workers=workers,
            batch_size=3,
            mean=[0.5] * 3,
            std=[0.25] * 3,
            read=ReadConfig(color="rgb"),
        )
        assert isinstance(data._splits["train"].dataset, ArrayDataset if keep else ImageDataset)
        batches[keep, workers] = [
            *data.train_dataloader(),
            *data.val_dataloader(),
            *(() if workers else data.eval_batches("train")),
        ]
    reference = batches[True, 0]
    assert reference[0].input.dtype == torch.uint8
    assert sorted(torch.cat([batch.index for batch in reference[:3]]).tolist()) == list(range(8))
    for found in batches.values():
        for a, b in zip(reference, found, strict=False):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert len(batches[False, 0]) == len(reference)
    assert len(batches[False, 2]) == len(reference) - 3


def test_images_are_kept_in_memory_by_default_if_they_fit(tmp_path, monkeypatch):
    save_tree(tmp_path)
    dataset = opened(f"folder:{tmp_path}", holdout=0.0).train
    assert dataset.nbytes == 6 * 3 * 6 * 6
    assert isinstance(module(f"folder:{tmp_path}", holdout=0.0)._splits["train"].dataset, ArrayDataset)
    monkeypatch.setattr("diet_lightning.data.splits.MEMORY_LIMIT", 6 * 3 * 6 * 6 - 1)
    data = module(f"folder:{tmp_path}", holdout=0.0, num_workers=None)
    assert isinstance(data._splits["train"].dataset, ImageDataset)
    assert data.train_dataloader().num_workers >= 1  # images decoded on the fly get workers by default
    assert module("digits", num_workers=None).train_dataloader().num_workers == 0


def test_decoding_into_memory_keeps_order_labels_and_pixels(tmp_path):
    files = [save(tmp_path / f"{n}.png", 255 - n) for n in range(40)]
    dataset = ImageFileDataset(ImageFiles(files, list(range(40)), tmp_path))
    array = dataset.loaded(in_memory=True)
    assert array.inputs[:, 0, 0, 0].tolist() == [255 - n for n in range(40)]
    assert array.labels.tolist() == list(range(40))


def test_image_dataset_keeps_what_is_asked_for(tmp_path):
    files = [save(tmp_path / f"{n}.png", n) for n in range(6)]
    dataset = ImageFileDataset(ImageFiles(files, [5, 4, 3, 2, 1, 0], tmp_path), keep=[4, 1, 3])
    assert (colours(dataset), labels(dataset), dataset.labels.tolist()) == ([4, 1, 3], [1, 4, 2], [1, 4, 2])
    smaller = dataset.subset([2, 0])
    assert (colours(smaller), smaller.name_of(1)) == ([3, 4], f" ({files[4]})")
    digests = [hashlib.blake2b(files[n].read_bytes(), digest_size=16).digest() for n in (4, 1, 3)]
    assert dataset.fingerprint_parts()[1:] == [b"".join(digests), b"4.png\x001.png\x003.png"]


@pytest.mark.parametrize("subset", [1, None])
def test_a_single_training_sample_is_refused(tmp_path, subset):
    stored, _ = gray_arrays(2 if subset else 1)
    name = save_npz(tmp_path / "x.npz", train_images=stored)
    with pytest.raises(DataError, match="at least 2 training samples"):
        module(name, subset=subset)


def test_setup_opens_the_source_once(tmp_path):
    stored, _ = gray_arrays(4)
    name = save_npz(tmp_path / "x.npz", train_images=stored)
    data = DIETDataModule(name, batch_size=2)
    assert data.num_samples == 4  # reads on first use
    (tmp_path / "x.npz").unlink()
    data.setup("fit")
    data.setup("test")
    assert data.num_samples == 4


def test_a_label_that_is_no_class_is_not_taken_for_an_unreadable_image():
    dataset = ImageDataset([(Image.new("RGB", (6, 6)), 0), (Image.new("RGB", (6, 6)), 0.5)])
    with pytest.raises(
        ConfigurationError, match=r"The label of image 1 is not a class: .* but got 0.5; correct the label"
    ):
        dataset.without_unreadable()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_whose_images_are_all_unreadable_is_refused(tmp_path, split):
    for part in ("train", "val"):
        for name in "ab":
            file = tmp_path / part / name / "0.png"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"") if part == split else Image.new("RGB", (6, 6), name == "a").save(file)
    data = DIETDataModule(f"folder:{tmp_path}", image_size=6, drop_unreadable=True)
    with pytest.raises(
        DataError, match=rf"None of the 2 images of a split can be read, the first is 0 \(.*{split}.a.0\.png"
    ):
        data.setup()
