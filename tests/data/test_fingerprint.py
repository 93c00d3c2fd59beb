"""What the fingerprint of each kind of data set sees: replaced, swapped, re-encoded, renamed and moved files."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from helpers import TinyNet, images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from diet_lightning import DIETDataModule, DIETModule
from diet_lightning.data.adapters import adapt
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.fingerprint import file_digests, row_digests
from diet_lightning.data.image_files import ImageFileDataset, ImageFiles
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.source import SourceOptions
from diet_lightning.data.sources import load_source
from diet_lightning.errors import CheckpointError
from diet_lightning.utilities.threads import map_threaded


def write_images(folder, count=6, seed=0, suffix="bmp"):
    """Images of noise, of one size in bytes where the format is uncompressed."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, image in enumerate(images(count, seed=seed)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{n}.{suffix}")
    return folder


def age(folder, seconds=100):
    """Makes files look old, so that their kept digests are trusted."""
    for path in folder.rglob("*"):
        stamp = path.stat().st_mtime_ns - seconds * 10**9
        os.utime(path, ns=(stamp, stamp))


def train_of(source, **options):
    return load_source(str(source), SourceOptions(**options)).train


def fingerprint(folder):
    return train_of(f"folder:{folder}").fingerprint()


def digest(content):
    return hashlib.blake2b(content, digest_size=16).digest()


# -- digests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2**18 - 1, 2**18, 3 * 2**18 + 5])
def test_the_digest_of_a_file_is_that_of_all_its_bytes(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "file").write_bytes(content)
    found = file_digests([tmp_path / "file", str(tmp_path / "missing")], tmp_path)
    assert (found.dtype, found.shape) == (np.uint8, (2, 16))
    assert found[0].tobytes() == digest(content)
    assert not found[1].any()


def test_names_are_relative_to_the_folder_but_those_of_other_files(tmp_path):
    paths = ["/d/a.png", Path("/d/b/d/c.png"), "/d2/x.png", "/e/d/f.png", "/d/\udcff.png", "/d/é.png"]
    names = ["a.png", "b/d/c.png", "/d2/x.png", "/e/d/f.png", "\\xff.png", "é.png"]
    for root in ("/d", "/d/", Path("/d")):
        assert ImageFiles(paths, [0] * 6, root).names == names
    assert ImageFiles(["a.png"], [0], "").names == ["a.png"]
    assert ImageFiles([], [], "/d").names == []
    assert file_digests([], tmp_path).shape == (0, 16)


def test_the_stamps_of_the_listing_reach_every_split_and_are_not_read_again(tmp_path, monkeypatch):
    for n in range(40):
        path = tmp_path / f"class{n % 2}" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(n + 1))
    source = load_source(f"folder:{tmp_path}", SourceOptions(holdout=0.25))
    monkeypatch.setattr("diet_lightning.data.fingerprint.file_stamps", None)
    assert [len(source.train), len(source.val)] == [30, 10]
    for split in (source.train, source.val, source.train.subset([7, 3])):
        files = split.items.at(split.keep)
        found = [Path(path).stat() for path in files.paths]
        assert files.stamps.tolist() == [[each.st_size, each.st_mtime_ns, each.st_ctime_ns] for each in found]
        contents = [Path(path).read_bytes() for path in files.paths]
        assert [row.tobytes() for row in split.sample_digests()] == list(map(digest, contents))


def test_a_file_that_may_not_be_read_has_no_digest(tmp_path):
    assert file_digests([tmp_path], tmp_path).tolist() == [[0] * 16]  # a folder raises the same error as a locked file


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
@pytest.mark.parametrize("shape", [(600, 3, 5), (256, 2), (7,)])
def test_the_digest_of_a_row_is_that_of_its_bytes(make, shape):
    rows = np.random.default_rng(0).normal(size=shape)
    found = row_digests(make(rows))
    assert [row.tobytes() for row in found] == [digest(row.tobytes()) for row in rows]
    turned = row_digests(make(rows).T) if len(shape) == 2 else None  # not contiguous
    assert turned is None or [row.tobytes() for row in turned] == [digest(row.tobytes()) for row in rows.T]


def test_rows_without_bytes_and_no_rows():
    assert row_digests(torch.empty(3, 0)).shape == (3, 16)
    assert row_digests(np.empty((0, 4))).shape == (0, 16)


def test_threads_keep_the_order_and_start_where_asked():
    assert list(map_threaded(lambda n: n * n, 1200, "squares", first=3)) == [n * n for n in range(3, 1200)]


@pytest.mark.parametrize("block", [2, 7, 5000])
def test_threads_that_take_blocks_give_each_result_once_and_raise_errors(block):
    assert list(map_threaded(lambda n: n * n, 4099, "squares", first=3, block=block)) == [n * n for n in range(3, 4099)]
    with pytest.raises(ZeroDivisionError):
        list(map_threaded(lambda n: 1 / (n - 40), 100, "fractions", block=block))


# -- files -------------------------------------------------------------------------------------------------------------


def swap(folder):
    """The contents of two files, which keep size and times."""
    (folder / "1.bmp").rename(folder / "x")
    (folder / "2.bmp").rename(folder / "1.bmp")
    (folder / "x").rename(folder / "2.bmp")


def encode_again(folder):
    path = folder / "3.bmp"
    size = path.stat().st_size
    buffer = io.BytesIO()
    Image.open(path).convert("L").save(buffer, "PNG")
    path.write_bytes(buffer.getvalue().ljust(size, b"\0"))
    assert path.stat().st_size == size


def cut_and_pad(folder):
    path = folder / "4.bmp"
    path.write_bytes(path.read_bytes()[:-1] + b"\0" if path.read_bytes()[-1] else path.read_bytes()[:-1] + b"\1")


def replace_keeping_times(folder):
    path = folder / "5.bmp"
    found = path.stat()
    path.write_bytes(bytes(found.st_size))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES = {
    "all replaced": lambda folder: write_images(folder, seed=1),
    "swapped": swap,
    "encoded again": encode_again,
    "cut and padded": cut_and_pad,
    "replaced with the same time": replace_keeping_times,
    "renamed": lambda folder: (folder / "5.bmp").rename(folder / "9.bmp"),
    "one less": lambda folder: (folder / "5.bmp").unlink(),
    "emptied": lambda folder: (folder / "0.bmp").write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("trusted", [True, False], ids=["kept digests", "young files"])
def test_a_changed_folder_has_another_fingerprint(tmp_path, monkeypatch, change, trusted):
    if trusted:  # the times of status cannot be set back
        monkeypatch.setattr("diet_lightning.data.digest_store.RACY", -(10**12))
    folder = write_images(tmp_path / "photos")
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    time.sleep(0.05)  # the times of files advance in steps
    change(folder)
    assert fingerprint(folder) != before


def test_a_moved_or_touched_folder_keeps_its_fingerprint(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "photos")
    before = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert fingerprint(tmp_path / "elsewhere" / "copy") == before
    age(folder)
    assert fingerprint(folder) == before
    monkeypatch.chdir(folder)
    assert fingerprint(".") == before


def test_a_second_start_reads_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("diet_lightning.data.digest_store.RACY", -(10**12))
    folder = write_images(tmp_path / "photos")
    before = train_of(f"folder:{folder}").sample_digests()

    def read(path):
        raise AssertionError(f"{path} is read")

    with monkeypatch.context() as patch:
        patch.setattr("diet_lightning.data.fingerprint._file_digest", read)
        assert train_of(f"folder:{folder}").sample_digests().tolist() == before.tolist()
        monkeypatch.chdir(tmp_path)
        assert train_of("folder:photos").sample_digests().tolist() == before.tolist()
        cut_and_pad(folder)
        with pytest.raises(AssertionError, match=r"4\.bmp is read"):
            fingerprint(folder)


CONTENTS = st.dictionaries(st.sampled_from(["a", "b", "ab", "b/a", "c d"]), st.binary(max_size=3), min_size=1)


@settings(max_examples=60, deadline=None)
@given(CONTENTS, CONTENTS, st.randoms(use_true_random=False))
def test_fingerprints_are_equal_exactly_if_names_contents_and_order_are(first, second, random):
    def made(files, order):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for each, content in files.items():
                path = root / f"{each}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            paths = [root / f"{each}.png" for each in order]
            return ImageFileDataset(ImageFiles(paths, [0] * len(paths), root), 4).fingerprint()

    order, other = list(first), list(second)
    random.shuffle(other)
    same = [(name, first[name]) for name in order] == [(name, second[name]) for name in other]
    assert (made(first, order) == made(second, other)) == same


def test_a_subset_takes_the_digests_of_the_whole(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "photos")
    plain = train_of(f"folder:{folder}").subset([4, 1])
    train = train_of(f"folder:{folder}")
    digests = train.sample_digests()
    monkeypatch.setattr("diet_lightning.data.image_files.file_digests", None)  # not asked again
    assert train.subset([4, 1]).sample_digests().tolist() == digests[[4, 1]].tolist()
    monkeypatch.undo()
    assert plain.fingerprint() == train.subset([4, 1]).fingerprint() != train.subset([1, 4]).fingerprint()


def test_unreadable_files_have_a_fingerprint_too(tmp_path):
    paths = [write_images(tmp_path / "photos") / "0.bmp", tmp_path / "missing.bmp"]
    dataset = ImageFileDataset(ImageFiles(paths, [0, 0], tmp_path), 4)
    assert len(dataset.fingerprint()) == 32


# -- resuming, and the cache -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["all replaced", "swapped", "encoded again"])
def test_resuming_on_changed_images_is_refused(tmp_path, make_trainer, change):
    folder = write_images(tmp_path / "photos", count=8)

    def data():
        return DIETDataModule(f"folder:{folder}", batch_size=4, image_size=8)

    trainer = make_trainer(max_epochs=1)
    trainer.fit(DIETModule(TinyNet()), data())
    trainer.save_checkpoint("a.ckpt")
    CHANGES[change](folder)
    with pytest.raises(CheckpointError, match=r"other data of the same length \(N=8\)"):
        make_trainer().fit(DIETModule(TinyNet()), data(), ckpt_path="a.ckpt", weights_only=True)


@pytest.mark.parametrize(
    "options",
    [{"read": ReadConfig(background="black")}, {"read": ReadConfig(pages="channels")}, {"image_size": 6}],
    ids=["background", "pages", "size"],
)
def test_resuming_on_images_that_are_read_in_another_way_is_refused(tmp_path, make_trainer, options):
    folder = write_images(tmp_path / "photos", count=8)

    def data(**changed):
        return DIETDataModule(f"folder:{folder}", **{"batch_size": 4, "image_size": 8, **changed})

    trainer = make_trainer(max_epochs=1)
    trainer.fit(DIETModule(TinyNet()), data())
    trainer.save_checkpoint("a.ckpt")
    with pytest.raises(CheckpointError, match=r"read with other options \(`read`, `image_size`\)"):
        make_trainer().fit(DIETModule(TinyNet()), data(**options), ckpt_path="a.ckpt", weights_only=True)
    make_trainer(max_epochs=2).fit(DIETModule(TinyNet()), data(), ckpt_path="a.ckpt", weights_only=True)


def test_the_scaling_of_16_bits_is_identified_too(tmp_path):
    (tmp_path / "photos").mkdir()
    for n in range(3):
        pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * (60 + n)
        Image.fromarray(pixels).save(tmp_path / f"photos/{n}.png")

    def identity(**read):
        data = DIETDataModule(f"folder:{tmp_path / 'photos'}", image_size=8, read=ReadConfig(**read))
        return data.identity("train")["fingerprint"]

    assert identity() == identity(value_range=[0, 4095])  # the range of the data, of 12 bits
    assert identity() != identity(value_range=[0, 65535])


def test_touched_files_are_not_decoded_again(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "photos", count=8)

    def data():
        return DIETDataModule(f"folder:{folder}", batch_size=4, image_size=8, cache=str(tmp_path / "decoded"))

    data().setup()
    age(folder)
    with monkeypatch.context() as patch:
        patch.setattr("diet_lightning.data.cache.ImageCache._decode", None)
        data().setup()
    cut_and_pad(folder)
    before = (tmp_path / "decoded/train/images").read_bytes()
    data().setup()
    assert (tmp_path / "decoded/train/images").read_bytes() != before


# -- arrays, and data sets of libraries --------------------------------------------------------------------------------


def test_every_byte_of_tensors_counts_and_a_subset_is_its_rows():
    inputs = images(40)
    for row in (1, 7, 38):
        changed = inputs.clone()
        changed[row, 2, 7, 7] += 1
        for make in (ArrayDataset, TensorDataset, lambda x: Subset(TensorDataset(x), range(1, 39))):
            assert adapt(make(inputs)).fingerprint() != adapt(make(changed)).fingerprint()
    digests = row_digests(inputs)
    for dataset in (adapt(Subset(TensorDataset(inputs), [3, 1])), adapt(TensorDataset(inputs)).subset([3, 1])):
        assert dataset.sample_digests().tolist() == digests[[3, 1]].tolist()


def test_the_dtype_and_the_shape_of_an_array_count():
    inputs = images(4)
    assert len({ArrayDataset(x).fingerprint() for x in (inputs, inputs.view(torch.int8), inputs.flatten(1))}) == 3


def test_boundaries_between_parts_count():
    class Parts:
        def __init__(self, *parts):
            self.parts = parts

        def __len__(self):
            return 1

        def fingerprint_parts(self):
            return self.parts

    assert adapt(Parts(b"ab", b"c")).fingerprint() != adapt(Parts(b"a", b"bc")).fingerprint()


class InMemory(torchvision.datasets.CIFAR10):
    """CIFAR-10 of other pixels."""

    def __init__(self, data):
        self.data, self.targets, self.transform, self.target_transform = data, [0] * len(data), None, None


def test_every_pixel_of_torchvisions_arrays_counts():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    changed = pixels.copy()
    changed[17, 5, 5, 1] ^= 1
    sets = [ImageDataset(InMemory(each), pixels_in_memory=True) for each in (pixels, pixels.copy(), changed)]
    first, same, other = (dataset.fingerprint() for dataset in sets)
    assert first == same != other
    assert sets[0].subset([17, 2]).sample_digests().tolist() == row_digests(pixels[[17, 2]]).tolist()
    assert adapt(InMemory(pixels)).fingerprint() != adapt(InMemory(changed)).fingerprint()


@pytest.mark.parametrize("wrap", [ImageDataset, adapt], ids=["source", "of a user"])
def test_every_file_of_torchvisions_folders_counts(tmp_path, wrap):
    for name in ("cat", "dog"):
        write_images(tmp_path / "photos" / name, count=20)
    opened = [wrap(torchvision.datasets.ImageFolder(tmp_path / "photos"))]
    before = opened[0].fingerprint()
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    assert wrap(torchvision.datasets.ImageFolder(tmp_path / "moved")).fingerprint() == before
    cut_and_pad(tmp_path / "moved" / "dog")
    assert wrap(torchvision.datasets.ImageFolder(tmp_path / "moved")).fingerprint() != before


def test_a_custom_data_set_has_no_digests_whatever_its_attributes_are_called():
    class Custom:
        data, samples = np.zeros((3, 2)), [("a", 0)] * 3

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return torch.tensor([index])

    assert adapt(Custom()).sample_digests() is None


# -- Hugging Face ------------------------------------------------------------------------------------------------------


def save_parquet(path, contents, paths=()):
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    stored = pa.array(
        [{"bytes": c, "path": p} for c, p in itertools.zip_longest(contents, paths)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    info = {"info": {"features": {"image": {"_type": "Image"}}}}
    table = pa.table({"image": stored}).replace_schema_metadata({"huggingface": json.dumps(info)})
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path, row_group_size=16)
    return path


def encoded(count, seed=0):
    found = []
    for image in images(count, seed=seed):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "BMP")
        found.append(buffer.getvalue())
    return found


def test_every_image_of_a_table_counts_and_only_a_changed_table_is_hashed_again(tmp_path, monkeypatch):
    monkeypatch.setattr("diet_lightning.data.digest_store.RACY", -(10**12))
    contents = encoded(40)
    before = train_of(f"hf:parquet:{save_parquet(tmp_path / 'a.parquet', contents)}", root=str(tmp_path / "c"))
    assert [row.tobytes() for row in before.sample_digests()] == [digest(content) for content in contents]
    with monkeypatch.context() as patch:
        patch.setattr("diet_lightning.data.hugging_face_source.content_digest", None)  # not computed again
        again = train_of(f"hf:parquet:{tmp_path}/a.parquet", root=str(tmp_path / "c"))
        assert again.fingerprint() == before.fingerprint()
        assert again.subset([39, 2]).sample_digests().tolist() == before.sample_digests()[[39, 2]].tolist()
    changed = [*contents]
    changed[17], changed[18] = changed[18], changed[17]
    other = train_of(f"hf:parquet:{save_parquet(tmp_path / 'a.parquet', changed)}", root=str(tmp_path / "c"))
    assert other.fingerprint() != before.fingerprint()
    assert [row.tobytes() for row in other.sample_digests()] == [digest(content) for content in changed]


def test_images_that_a_table_keeps_in_other_files_are_hashed_there(tmp_path):
    folder = write_images(tmp_path / "photos", count=4)
    contents, paths = encoded(6), [None, str(folder / "1.bmp"), "gone.bmp", str(folder / "3.bmp"), None, None]
    stored = [None if path else content for content, path in zip(contents, paths, strict=True)]
    source = f"hf:parquet:{save_parquet(tmp_path / 'a.parquet', stored, paths)}"
    found = [row.tobytes() for row in train_of(source, root=str(tmp_path / "c")).sample_digests()]
    expected = [
        Path(path).read_bytes() if path and path != "gone.bmp" else c for path, c in zip(paths, contents, strict=True)
    ]
    assert found[:2] + found[3:] == [digest(content) for n, content in enumerate(expected) if n != 2]
    assert found[2] == bytes(16)
    before = train_of(source, root=str(tmp_path / "c")).fingerprint()
    (folder / "3.bmp").write_bytes(b"another")
    assert train_of(source, root=str(tmp_path / "c")).fingerprint() != before


def test_prediction_warns_of_replaced_training_images(tmp_path, make_trainer, recwarn):
    for n in range(4):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / f"{n}.png")

    def data(source=tmp_path):
        return DIETDataModule(f"folder:{source}", batch_size=4, num_workers=0)

    trainer = make_trainer(max_epochs=1)
    trainer.fit(DIETModule(TinyNet()), data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    def warnings_of(source=tmp_path):
        recwarn.clear()
        make_trainer().predict(DIETModule(TinyNet()), data(source), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
        return [str(each.message) for each in recwarn if "are not those of the checkpoint" in str(each.message)]

    assert warnings_of() == []
    Image.new("RGB", (8, 8), (9, 0, 0)).save(tmp_path / "2.png")
    assert len(warnings_of()) == 1
    (tmp_path / "2.png").unlink()
    (message,) = warnings_of()
    assert str(tmp_path) in message
    (tmp_path / "new").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "new" / "0.png")
    Image.new("RGB", (8, 8), (1, 1, 1)).save(tmp_path / "new" / "1.png")
    assert warnings_of(tmp_path / "new") == []  # chosen on purpose
