"""What was read, against Pillow, NumPy and what was written."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TinyNet, fit_on_two_ranks, image_data, images
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, DIETModule
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.image_files import ImageFileDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.split_summary import SplitSummary

RNG = np.random.default_rng(0)


def write(path, size, mode="RGB", **options):
    """A random image, width × height."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else size[::-1]
    dtype, high = (np.uint16, 4096) if mode == "I;16" else (np.uint8, 256)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, high, shape).astype(dtype)).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes and modes in split folders, of which one lies on its side."""
    for n in range(9):
        write(tmp_path / f"photos/train/{'ab'[n % 2]}/{n}.png", (20 + 3 * n, 50 - 2 * n), ("RGB", "L", "RGBA")[n % 3])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    write(tmp_path / "photos/train/a/turned.jpg", (200, 30), exif=exif)
    write(tmp_path / "photos/train/only/one.png", (33, 33), "L")
    for n in range(5):
        write(tmp_path / f"photos/val/{'ab'[n % 2]}/{n}.png", (24, 24))
    return tmp_path / "photos"


def looked_at(paths):
    """Sizes and modes of upright images, by Pillow alone."""
    sizes, modes = [], Counter()
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size[::-1] if image.getexif().get(274, 1) >= 5 else image.size)
            modes[image.mode] += 1
    widths, heights = zip(*sizes, strict=True)
    return [min(widths), max(widths)], [min(heights), max(heights)], modes


@pytest.mark.parametrize("options", [{}, {"in_memory": False}, {"cache": "decoded"}])
def test_folder_against_pillow(folder, options):
    summary = DIETDataModule(f"folder:{folder}", image_size=16, **options).summary()
    width, height, modes = looked_at(sorted((folder / "train").rglob("*.*")))
    found = summary.images
    assert (found.width, found.height, found.modes) == (width, height, dict(modes))
    assert width == [20, 44]  # the turned one, 200 × 30, is 30 pixels wide
    assert height == [33, 200]
    assert (found.num_looked_at, found.num_wide, found.num_transparent) == (11, 0, 3)
    assert found.stored_side == (None if options.get("in_memory") is False else 24)
    assert list(summary.splits) == ["train", "val"]
    train, val = summary.splits.values()
    assert train.first_classes == [["a", 6], ["b", 4], ["only", 1]]
    assert (train.num_samples, train.num_classes, train.class_sizes, train.single_classes) == (11, 3, [1, 6], ["only"])
    assert (val.num_samples, val.also, val.first_classes) == (5, "test", [["a", 3], ["b", 2]])
    assert (summary.input_shape, summary.value_range, summary.background) == ([3, 16, 16], [0.0, 255.0], "white")
    assert "Class 'only' has a single training sample" in summary.notes[-1]
    lines = summary.lines()
    assert len(lines) <= 8 + 3 * len(summary.notes)  # the rows of images and network take two lines
    assert max(map(len, lines[1:])) <= 100  # the first names the source, whose path may be longer
    text = " ".join(" ".join(lines).split())
    assert "train 11 samples, 3 classes: a (6), b (4), only (1) val 5 samples" in text
    assert "images all 11: width 20–44, height 33–200 pixels; RGB (4), L (4), RGBA (3); 8 bits" in text
    assert ("stored with a shorter side of at most 24 pixels" in text) == (found.stored_side is not None)
    assert "training sees a random crop of 8 to 100 % of the area, evaluation sees the central part" in text
    assert "3 of the 11 images looked at may have transparent pixels" in text


def test_normalization_is_that_of_the_pixels(folder):
    data = DIETDataModule(f"folder:{folder}", image_size=16)
    summary = data.summary()
    every = torch.cat([image.flatten(1) for batch in data.raw_batches("train") for image in batch.input], dim=1)
    every = every.double().numpy() / 255
    np.testing.assert_allclose(summary.mean, every.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(summary.std, every.std(axis=1), rtol=1e-9)
    assert f"minus mean {every[0].mean():.3f}, " in " ".join(summary.lines())
    given = DIETDataModule(f"folder:{folder}", image_size=16, mean=[0.1] * 3, std=[0.2] * 3).summary()
    assert (given.mean, given.std) == ([0.1] * 3, [0.2] * 3)


def test_part_of_many_images_is_looked_at_and_it_says_so(folder, monkeypatch):
    monkeypatch.setattr(ImageFileDataset, "num_headers", 4)
    data = DIETDataModule(f"folder:{folder}", image_size=16)
    assert data.summary().images.num_looked_at == 4
    assert any("4 of 11 looked at: " in line for line in data.summary().lines())


def test_headers_are_read_once(folder, monkeypatch):
    reads = []
    header = ImageFileDataset.header
    monkeypatch.setattr(ImageFileDataset, "header", lambda self, n: reads.append(n) or header(self, n))
    data = DIETDataModule(f"folder:{folder}", image_size=16)
    data.setup()
    before = len(reads)
    assert data.summary() == data.summary()
    assert len(reads) == before > 0


@pytest.mark.parametrize(("wide", "bits"), [(6, "more than 8 bits"), (2, "2 of more than 8 bits"), (0, "8 bits")])
def test_images_of_more_than_8_bits(tmp_path, wide, bits):
    for n in range(6):
        write(tmp_path / f"data/{n}.png", (12, 12), "I;16" if n < wide else "L")
    summary = DIETDataModule(f"folder:{tmp_path}/data").summary()
    assert summary.images.num_wide == wide
    assert summary.value_range == ([0.0, 4095.0] if wide else [0.0, 255.0])
    text = " ".join(summary.lines())
    assert f"; {bits} " in text
    assert ("those of 8 bits 0 … 255" in text) == (wide == 2)
    # what is given does not change images of 8 bits, and the summary does not say that it does
    read = {"read": DIETDataModule().read.__class__(value_range=[0, 8191])}
    given = DIETDataModule(f"folder:{tmp_path}/data", **read).summary()
    assert given.value_range == ([0.0, 8191.0] if wide else [0.0, 255.0])


@pytest.mark.parametrize(
    ("values", "stored", "value_range"),
    [
        (RNG.integers(0, 256, (20, 9, 9, 3), dtype=np.uint8), "uint8", [0.0, 255.0]),
        (RNG.integers(0, 4096, (20, 9, 9)).astype(np.uint16), "float32", [0.0, 4095.0]),
        (RNG.random((20, 5, 9, 9)), "float32", [0.0, 1.0]),
        (RNG.normal(size=(20, 7)).astype(np.float32), "float32", None),
    ],
)
def test_arrays(tmp_path, values, stored, value_range):
    np.savez(tmp_path / "data.npz", train_images=values, train_labels=np.arange(20) % 3)
    summary = DIETDataModule(f"npz:{tmp_path}/data.npz", strength=0).summary()
    assert summary.images is None
    assert (summary.stored_dtype, summary.value_range) == (stored, value_range)
    assert summary.stored_shape == summary.input_shape
    text = " ".join(summary.lines())
    assert ("kept as they are; no mean subtracted" in text) == (value_range is None)
    if value_range is not None:
        assert f"{value_range[1]:g} become 0 … 1" in text
        channels = summary.input_shape[0]
        assert f"{channels} channel{'s' * (channels > 1)} of 9 × 9 pixels" in text
        axes = (0, 1, 2) if values.ndim == 3 or values.shape[-1] == 3 else (0, 2, 3)
        np.testing.assert_allclose(summary.mean, np.ravel(values.mean(axis=axes) / value_range[1]), rtol=1e-5)


@given(st.lists(st.integers(-1, 7), min_size=1, max_size=60), st.booleans())
def test_counts_of_labels(labels, named):
    names = [f"n{n}" for n in range(8)] if named else None
    split = IndexedDataset(ArrayDataset(torch.zeros(len(labels), 2), torch.tensor(labels)))
    found = SplitSummary.of(split, None, names)
    counts = Counter(sorted(label for label in labels if label >= 0))
    word = {label: f"n{label}" if named else str(label) for label in counts}
    assert found.num_samples == len(labels)
    assert found.num_unlabelled == labels.count(-1)
    assert found.num_classes == (len(counts) or None)
    assert found.class_sizes == ([min(counts.values()), max(counts.values())] if counts else [])
    assert found.first_classes == [[word[label], count] for label, count in list(counts.items())[:5]]
    assert found.single_classes == [word[label] for label, count in counts.items() if count == 1]
    assert ("without labels" in found.text()) == (not counts)
    assert len(found.single_class_notes()) == (1 in counts.values())


def test_labels_that_are_not_listed(monkeypatch):
    monkeypatch.setattr("diet_lightning.data.carried_labels.READ_TO_LABEL", 11)

    class Unlisted(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, n):
            return torch.zeros(3, 8, 8, dtype=torch.uint8), n % 3

    summary = DIETDataModule.from_datasets(Unlisted()).summary()
    assert summary.splits["train"] == SplitSummary(12, None, None, None, [], [], [])
    assert summary.splits["train"].text() == "12 samples"


def test_many_single_classes_are_one_sentence():
    data = DIETDataModule.from_datasets(TensorDataset(images(30), torch.arange(30)))
    (note,) = data.summary().notes
    assert note.startswith("30 of 30 classes have a single training sample")
    assert "('0', '1', '2', '3', '4', …)" in note


def test_summary_is_plain_and_names_of_any_kind_are_printable(tmp_path):
    for name in ("new\nline", "esc\x1b[31m", "Käfer", "\udcff"):
        for n in range(2):
            write(tmp_path / "odd" / name / f"{n}.png", (9, 9))
    summary = DIETDataModule(f"folder:{tmp_path}/odd", holdout=0.0).summary()
    values = summary.as_dict()
    assert json.loads(json.dumps(values)) == values == asdict(summary)
    lines = summary.lines()
    assert all(line.isprintable() for line in lines)
    "\n".join(lines).encode()
    text = " ".join(lines)
    assert all(part in text for part in ("new\\nline (2)", "esc\\x1b[31m (2)", "Käfer (2)", "\\xff (2)"))


@pytest.mark.parametrize("cache", [None, "decoded"])
def test_unreadable_images_are_counted(folder, cache):
    for name in ("broken.png", "empty.jpg"):
        (folder / "train/b" / name).write_bytes(b"\x89PNG" if name[0] == "b" else b"")
    data = DIETDataModule(f"folder:{folder}", image_size=8, drop_unreadable=True, cache=cache)
    with pytest.warns(UserWarning, match="2 unreadable"):
        summary = data.summary()
    assert summary.splits["train"].num_samples == 11
    assert any(note.startswith("2 unreadable image(s) of the train split were left out") for note in summary.notes)


def tables(caplog):
    return [message for message in caplog.messages if message.startswith("What was read from ")]


def test_table_is_logged_once_when_a_fit_starts(make_trainer, caplog):
    caplog.set_level("INFO")
    data, module = image_data(48), DIETModule(TinyNet())
    assert data.summary().lines()
    assert tables(caplog) == []  # asking for it, or opening the data, logs nothing
    trainer = make_trainer(callbacks=[])
    trainer.fit(module, data)
    assert tables(caplog) == ["\n".join(data.summary().lines())]
    trainer.validate(module, data, verbose=False)
    trainer.predict(module, data)
    make_trainer().validate(module, data, verbose=False)
    data.train_dataloader()
    assert len(tables(caplog)) == 1
    make_trainer(max_epochs=1).fit(module, data)
    assert len(tables(caplog)) == 2


def test_table_comes_before_the_first_step_and_with_notes(make_trainer, caplog, tmp_path):
    caplog.set_level("INFO")
    np.savez(tmp_path / "a.npz", train_images=RNG.integers(0, 4096, (40, 9, 9, 3)).astype(np.uint16))
    seen = []

    class Watched(DIETModule):
        def on_train_batch_start(self, batch, batch_idx):
            seen.append(len(tables(caplog)))
            super().on_train_batch_start(batch, batch_idx)

    data = DIETDataModule(f"npz:{tmp_path}/a.npz", batch_size=20)
    make_trainer(max_epochs=2, reload_dataloaders_every_n_epochs=1).fit(Watched(TinyNet()), data)
    assert set(seen) == {1}
    (table,) = tables(caplog)
    words = " ".join(table.split())
    assert all(note in words for note in data.notes)
    assert len(data.notes) == 2
    assert not set(data.notes) & set(caplog.messages)  # not each by itself as well


def test_resumed_run_tells_the_normalization_of_its_checkpoint(make_trainer, caplog):
    caplog.set_level("INFO")
    first = make_trainer(max_epochs=1)
    first.fit(DIETModule(TinyNet()), image_data(48))
    first.save_checkpoint("a.ckpt")
    saved = torch.load("a.ckpt", weights_only=True)
    saved["DIETDataModule"]["mean"] = [0.125, 0.25, 0.375]
    torch.save(saved, "a.ckpt")
    make_trainer(max_epochs=2).fit(DIETModule(TinyNet()), image_data(48), ckpt_path="a.ckpt")
    before, after = tables(caplog)
    assert "minus mean 0.125, 0.250, 0.375" not in before
    assert "minus mean 0.125, 0.250, 0.375" in after


@pytest.mark.slow
def test_of_two_ranks_one_logs_the_table(tmp_path):
    assert fit_on_two_ranks(tmp_path).count("What was read from ") == 1
