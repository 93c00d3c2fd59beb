"""Decoded images on disk: the same batches, decoded once, whole after a kill, and never another set's."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diet_lightning import DIETDataModule, DIETModule, ReadConfig
from diet_lightning.data import cache as cache_room
from diet_lightning.data.cache import ImageCache, MappedDataset
from diet_lightning.data.image_files import ImageFileDataset, ImageFiles
from diet_lightning.data.images import ImageDataset
from diet_lightning.errors import ConfigurationError, DataError

COUNT = 20


def save_images(folder, count=COUNT, size=6, seed=0):
    rng = np.random.default_rng(seed)
    for n in range(count):
        path = folder / f"class{n % 2}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def folder(tmp_path):
    return save_images(tmp_path / "images")


def data(folder, cache="cache", **options):
    return DIETDataModule(f"folder:{folder}", **{"cache": cache, "batch_size": 4, "holdout": 0.2, **options})


def batches(module, split="train"):
    return [(batch.input, batch.index, batch.label) for batch in module.eval_batches(split)]


def assert_same(left, right):
    for ours, theirs in zip(left, right, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def count_decoded(monkeypatch):
    """Indices of the images that are decoded from now on."""
    indices, decode = [], ImageDataset.read

    def counted(self, index, *args):
        indices.append(index)
        return decode(self, index, *args)

    monkeypatch.setattr(ImageDataset, "read", counted)
    return indices


@pytest.mark.parametrize("in_memory", [None, True])
@pytest.mark.parametrize("subset", [None, 7])
def test_cached_batches_are_the_uncached_ones_and_decoded_once(folder, monkeypatch, in_memory, subset):
    plain = data(folder, cache=None, subset=subset)
    first = data(folder, subset=subset, in_memory=in_memory)
    for split in ("train", "val"):
        assert_same(batches(first, split), batches(plain, split))
    assert first.state_dict() == plain.state_dict()
    assert first.num_classes == plain.num_classes == 2
    decoded = count_decoded(monkeypatch)
    again = data(folder, subset=subset, in_memory=in_memory)
    for split in ("train", "val"):
        assert_same(batches(again, split), batches(plain, split))
    assert not decoded
    assert sorted(path.name for path in Path("cache").iterdir() if path.name[0] != ".") == ["train", "val"]
    assert not list(Path("cache").glob(".*.partial"))


def test_training_batches_do_not_depend_on_cache_and_workers(folder):
    def epoch(**options):
        loader = data(folder, **options).train_dataloader()
        return [tuple(batch) for batch in loader]

    plain = epoch(cache=None, in_memory=False, num_workers=0)
    for options in ({}, {"num_workers": 2}, {"in_memory": True}):
        assert_same(epoch(**options), plain)


def test_a_set_larger_than_the_memory_is_read_by_workers(folder, monkeypatch):
    def workers(**options):
        return data(folder, **options).train_dataloader().num_workers

    assert workers() == 0
    monkeypatch.setattr("diet_lightning.data.loaders.available_memory", lambda device: 1000)
    assert workers() > 0
    assert workers(num_workers=0) == workers(in_memory=True) == 0


def test_a_loaders_process_maps_the_files_again(folder):
    module = data(folder)
    module.setup()
    mapped = module._splits["train"].dataset
    assert isinstance(mapped, MappedDataset)
    packed = pickle.dumps(mapped)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    assert torch.equal(again.inputs, mapped.inputs)
    assert torch.equal(again.labels, mapped.labels)


def test_an_unreadable_image_is_left_out_and_remembered(folder):
    (folder / "class0/4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"4\.png\) cannot be read"):
        data(folder, holdout=0.0).setup()
    plain = data(folder, cache=None, holdout=0.0, drop_unreadable=True)
    with pytest.warns(UserWarning, match=r"Left out 1 unreadable"):
        plain.setup()
    for _ in range(2):
        cached = data(folder, holdout=0.0, drop_unreadable=True)
        with pytest.warns(UserWarning, match=r"Left out 1 unreadable .*\n.*4\.png"):
            cached.setup()
        assert cached.num_samples == COUNT - 1
        assert_same(batches(cached), batches(plain))
        assert cached.state_dict() == plain.state_dict()


KILLED = """
import sys, time
from diet_lightning.data.images import ImageDataset
from diet_lightning import DIETDataModule
decode = ImageDataset.read
def slow(self, index):
    time.sleep(0.004)
    return decode(self, index)
ImageDataset.read = slow
DIETDataModule("folder:" + sys.argv[1], cache="cache", holdout=0.0).setup()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    folder = save_images(tmp_path / "many", count=1500, size=2)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)])
    partial = Path("cache/.train.partial")
    while not ((partial / "done").exists() and (partial / "done").stat().st_size >= 512):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("cache/train").exists()
    with (partial / "images").open("ab") as file:
        file.write(b"torn")  # the last image may be written in part
    done = (partial / "done").stat().st_size
    assert 512 <= done < 1500
    decoded = count_decoded(monkeypatch)
    resumed = data(folder, holdout=0.0)
    resumed.setup()
    assert sorted(set(decoded)) == [0, *range(done, 1500)]  # the first tells the size
    assert_same(batches(resumed), batches(data(folder, cache=None, holdout=0.0)))


def test_resumed_decoding_leaves_out_the_same_images(folder, monkeypatch):
    options = {"holdout": 0.0, "drop_unreadable": True}
    for n, path in enumerate(data(folder, cache=None, holdout=0.0).names("train")):
        if n in (0, 3, 10, 11):  # before the first row, among the rows, and beyond the last row that is kept
            (folder / path).write_bytes(b"no image")
    read = ImageDataset.read

    def stopped(self, index):
        if index == 13:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(cache_room, "BLOCK", 4)
    with monkeypatch.context() as patch:
        patch.setattr(ImageDataset, "read", stopped)
        with pytest.raises(KeyboardInterrupt):
            data(folder, **options).setup()
    assert Path("cache/.train.partial/done").stat().st_size == 8  # of images 1, 2, 4 … 9
    decoded = count_decoded(monkeypatch)
    with pytest.warns(UserWarning, match="Left out 4 unreadable"):
        resumed = batches(data(folder, **options))
    assert sorted(set(decoded)) == [0, 1, *range(12, COUNT)]  # the first two tell the size
    with pytest.warns(UserWarning, match="Left out 4 unreadable"):
        assert_same(resumed, batches(data(folder, cache=None, **options)))


@pytest.mark.parametrize("damage", ["images", "labels", "both files gone", "json", "other format"])
def test_a_damaged_cache_is_noticed_and_made_again(folder, damage):
    expected = batches(data(folder))
    if damage in ("images", "labels"):
        path = Path(f"cache/train/{damage}")
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "both files gone":
        Path("cache/train/images").unlink()
        Path("cache/train/labels").unlink()
    elif damage == "json":
        Path("cache/train/meta.json").write_text("{")
    else:
        meta = json.loads(Path("cache/train/meta.json").read_text())
        Path("cache/train/meta.json").write_text(json.dumps({**meta, "format": 0}))
    module = data(folder)
    if damage == "json":
        module.setup()
    else:
        with pytest.warns(UserWarning, match="train split in 'cache' is damaged: decoding it again"):
            module.setup()
    assert_same(batches(module), expected)


@pytest.mark.parametrize("change", ["another image", "same length, other bytes", "image size", "label"])
def test_a_stale_cache_is_made_again(folder, change):
    options = {"holdout": 0.0}
    before = batches(data(folder, **options))
    if change == "another image":
        save_images(folder / "more", count=2, seed=1)
        shutil.move(folder / "more/class0/0.png", folder / "class0/99.png")
        shutil.rmtree(folder / "more")
    elif change == "same length, other bytes":
        path = folder / "class0/0.png"
        kept = path.read_bytes()
        Image.fromarray(np.zeros((6, 6, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes().ljust(len(kept), b"\0"))
        assert path.stat().st_size == len(kept)
    elif change == "label":
        (folder / "class1").rename(folder / "aaa")
    else:
        options["image_size"] = 4
    fresh = data(folder, **options)
    assert_same(batches(fresh), batches(data(folder, cache=None, **options)))
    after = batches(fresh)
    assert len(after) != len(before) or not all(
        torch.equal(a, b) for ours, theirs in zip(before, after, strict=True) for a, b in zip(ours, theirs, strict=True)
    )


def test_the_cache_of_another_folder_is_refused(folder, tmp_path):
    data(folder).setup()
    other = save_images(tmp_path / "other", seed=5)
    with pytest.raises(
        ConfigurationError, match=r"cache='cache' holds the train split of 'folder:.*images', not of .*other'"
    ):
        data(other).setup()
    data(folder).setup()


def test_a_full_disk_leaves_no_broken_cache(folder, monkeypatch):
    usage = shutil.disk_usage(".")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
        with pytest.raises(DataError, match=r"disk of cache='cache' is full \(1,984 bytes are needed, 100 are left\)"):
            data(folder).setup()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_room.os, "fsync", full)
        with pytest.raises(DataError, match=r"is full \(No space left on device\): choose a `cache` with more room"):
            data(folder).setup()
    assert [path.name for path in Path("cache").iterdir() if path.name[0] != "."] == []
    assert_same(batches(data(folder)), batches(data(folder, cache=None)))


def test_what_is_no_set_of_image_files_is_refused(folder, tmp_path):
    with pytest.raises(ConfigurationError, match="`cache` to be None for source 'digits'"):
        DIETDataModule("digits", cache="cache").setup()
    Path("file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cache='file/below' cannot be written"):
        data(folder, cache="file/below").setup()


@pytest.mark.slow
def test_two_processes_decode_once(tmp_path):
    folder = save_images(tmp_path / "many", count=600, size=2)
    both = [subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert_same(batches(data(folder, holdout=0.0)), batches(data(folder, cache=None, holdout=0.0)))


def test_files_of_other_sizes_are_read_in_order(tmp_path):
    for n in range(5):
        path = tmp_path / "a" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8 + n, 6), (n, n, n)).save(path)
    paths = sorted((tmp_path / "a").iterdir())
    opened = ImageCache("cache", "mine").open(
        ImageFileDataset(ImageFiles(paths, [4, 3, 2, 1, 0], tmp_path), 5), "train"
    )
    assert [tuple(image.shape) for image in opened.data.inputs] == [(3, 6, 8 + n) for n in range(5)]
    assert [image.unique().tolist() for image in opened.data.inputs] == [[n] for n in range(5)]
    assert opened.data.labels.tolist() == [4, 3, 2, 1, 0]


def test_an_unreadable_first_image_is_left_out_too_and_another_size_is_not(folder):
    first = folder / "class0/0.png"
    first.write_bytes(b"no image")
    cached, plain = (data(folder, cache=where, holdout=0.0, drop_unreadable=True) for where in ("cache", None))
    with pytest.warns(UserWarning, match="Left out 1 unreadable"):
        assert_same(batches(cached), batches(plain))
    Image.new("RGB", (7, 9)).save(folder / "class0/8.png")
    with (
        pytest.raises(
            DataError, match=r"8\.png\) has shape \(3, 9, 7\), but image 0 has \(3, 6, 6\): set `image_size`"
        ),
    ):
        data(folder, holdout=0.0, drop_unreadable=True).setup()


def test_files_larger_than_the_memory_are_mapped(tmp_path):
    size = 2 * int(next(x for x in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in x).split()[1]) * 1024
    count = size // 2**20
    for name, length in (("images", count * 2**20), ("labels", count * 8), ("done", count)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, length)  # a file of holes takes no room
    np.full((count, 2), 1024, np.int32).tofile(tmp_path / "sizes")
    mapped = MappedDataset(tmp_path, 1)
    assert mapped.inputs[count - 1].sum() == 0
    assert len(mapped) == count


def test_a_resumed_run_normalises_as_it_began(folder, make_trainer):
    def fit(checkpoint=None, **options):
        module, trainer = DIETModule("resnet8"), make_trainer(max_epochs=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few cores for the loader's processes
            trainer.fit(module, found := data(folder, **options), ckpt_path=checkpoint)
        return trainer, found

    trainer, streamed = fit(cache=None, in_memory=False, num_workers=0)
    trainer.save_checkpoint("streamed.ckpt")
    assert streamed.state_dict()["mean"] == [0.485, 0.456, 0.406]
    fresh = data(folder)
    assert fresh.state_dict()["mean"] != streamed.state_dict()["mean"]
    _, resumed = fit("streamed.ckpt")
    assert resumed.state_dict() == streamed.state_dict()
    _, given = fit("streamed.ckpt", mean=[0.1] * 3, std=[0.2] * 3)
    assert given.state_dict()["mean"] == [0.1] * 3


def test_images_are_decoded_again_for_other_pixels(tmp_path):
    for n in range(3):
        Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / f"{n}.png")
    for background, value in (("white", 255), ("black", 0), ("#800000", 128)):
        data = DIETDataModule(
            f"folder:{tmp_path}", image_size=4, cache=str(tmp_path / "cache"), read=ReadConfig(background=background)
        )
        assert data.raw_samples("train", range(3)).input[:, 0].unique().tolist() == [value]
