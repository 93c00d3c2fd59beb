"""Pictures of the preview and the contact sheet, against the inputs of the network; `diet data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import images
from PIL import Image
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule
from diet_lightning.__main__ import main
from diet_lightning.data.preview import make_preview
from diet_lightning.errors import DataError
from diet_lightning.figures.contact_sheet import contact_sheet


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (5, 3)])
def test_pixels_are_the_networks_inputs_without_normalization(channels, shown):
    train = TensorDataset(images(50, channels, 12), torch.arange(50) % 2)
    data = DIETDataModule.from_datasets(train, class_names=["$a_1$", "b"])
    found = make_preview(data)
    indices = np.linspace(0, 49, 16).astype(int).tolist()
    batch, summary = data.raw_samples("train", indices), data.summary()
    mean, std = (np.array(each)[:, None, None] for each in (summary.mean, summary.std))
    for pictures, draw in ((found.clean, None), (found.augmented, 0)):
        wanted = (data.network_inputs(batch.input, draw).numpy() * std + mean)[:, :shown].clip(0, 1)
        wanted = wanted[:, 0] if shown == 1 else wanted.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(pictures, wanted, atol=1e-12)
    raw = batch.input[:, :shown].numpy() / 255  # clean pictures are the data's own
    np.testing.assert_allclose(found.clean, raw[:, 0] if shown == 1 else raw.transpose(0, 2, 3, 1), atol=1e-6)
    assert np.abs(found.clean - found.augmented).max() > 0.1
    assert found.titles == [["$a_1$", "b"][n % 2] for n in indices]
    assert found.names == [f"#{n}" for n in indices]
    assert (found.note == "") == (channels in (1, 3))
    drawn = contact_sheet(found.clean, found.augmented, found.titles, found.names, "").axes
    assert len(drawn) == 32
    for axis, picture in zip(
        drawn, np.stack([found.clean, found.augmented], 1).reshape(32, *found.clean.shape[1:]), strict=True
    ):
        np.testing.assert_array_equal(axis.images[0].get_array(), picture)


def test_inputs_that_are_not_images_have_no_pictures():
    data = DIETDataModule.from_datasets(TensorDataset(torch.rand(10, 4)), strength=0)
    with pytest.raises(DataError, match="not images"):
        make_preview(data)


@pytest.fixture
def photos(tmp_path):
    for n in range(12):
        file = tmp_path / "photos" / ("cat", "汉")[n % 2] / f"{n}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + n, 30), (n * 20, 40, 90)).save(file)


def test_data_prints_the_table_and_draws(photos, capsys):
    assert main(["data", "folder:photos"]) == 0
    out = capsys.readouterr().out
    assert "What was read from folder:photos:" in out
    assert "3 channels of 96 × 96 pixels" in out
    assert out.splitlines()[-1] == "Wrote data.png: look at it"
    with Image.open("data.png") as picture:
        assert min(picture.size) > 300
    assert main(["data", "folder:photos", "--image-size", "24", "--read.color", "gray", "--output", "out/b.png"]) == 0
    assert "1 channel of 24 × 24 pixels" in capsys.readouterr().out
    assert Path("out/b.png").is_file()


def test_data_without_images_draws_nothing(capsys):
    np.savez("a.npz", train_images=np.random.default_rng(0).normal(size=(9, 5)))
    assert main(["data", "npz:a.npz", "--strength", "0"]) == 0
    assert "not images" in capsys.readouterr().out.splitlines()[-1]
    assert not Path("data.png").exists()


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["folder:photos", "--output", "photos/a.png"], "would be an image of the source"),
        (["folder:photos", "--output", "a.jpg"], "to be a .png file, but got 'a.jpg'"),
        (
            ["folder:photos", "--output", "kept.png"],
            "Output file 'kept.png' exists: move it, or choose another `output`.",
        ),
        (["folder:nope"], "does not exist"),
        (["nope"], "Unknown source 'nope'"),
        (["folder:photos", "--image-size", "0"], "`image_size` to be at least 1"),
    ],
)
def test_bad_input_is_a_sentence(photos, capsys, args, sentence):
    Path("kept.png").write_text("mine")
    assert main(["data", *args]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("diet: error: ")]
    assert sentence in said
    assert Path("kept.png").read_text() == "mine"
