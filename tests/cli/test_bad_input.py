"""Whatever a user gets wrong on the command line: one sentence with argument, value and cure, status 1, nothing written."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from diet_lightning import DIETDataModule, DIETError
from diet_lightning.__main__ import main
from diet_lightning.errors import ConfigurationError, DataError


def folder(path, sizes=((8, 8),) * 6, broken=()):
    """Class folders a and b with small images."""
    for n, size in enumerate(sizes):
        file = path / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if n in broken:
            file.write_bytes(b"no image")
        else:
            Image.fromarray(np.full((*size, 3), 20 * n, np.uint8)).save(file)
    return path


@pytest.fixture
def wrong(tmp_path):
    """Inputs on disk that cannot be served."""
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "good")
    folder(tmp_path / "one_broken", broken=(2,))
    folder(tmp_path / "mixed", sizes=((8, 8), (8, 8), (9, 8), (8, 8)))
    folder(tmp_path / "single", sizes=((8, 8),))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "text.ckpt").write_text("no checkpoint")


CASES = {
    "missing folder": (["--data.source", "folder:nowhere"], ["folder 'nowhere' does not exist", "give the path"]),
    "empty folder": (["--data.source", "folder:empty"], ["'empty' holds no images"]),
    "unreadable image": (
        ["--data.source", "folder:one_broken", "--data.holdout=0"],
        ["(", "one_broken/a/2.png) cannot be read", "`drop_unreadable`"],
    ),
    "sizes": (["--data.source", "folder:mixed", "--data.holdout=0"], ["but image 0 has", "set `image_size`"]),
    "unknown source": (["--data.source", "imagenet"], ["Unknown source 'imagenet'", "'folder:PATH'"]),
    "unknown torchvision": (["--data.source", "torchvision:CIFAR11"], ["'torchvision:CIFAR11'", "such as CIFAR10"]),
    "missing torchvision": (
        ["--data.source", "torchvision:CIFAR10", "--data.root", "there"],
        ["root='there'", "`download`"],
    ),
    "broken npz": (["--data.source", "npz:cut.npz"], ["'cut.npz' cannot be read"]),
    "unknown backbone": (["--model.backbone", "resnet19"], ["Unknown backbone 'resnet19'", "list_models"]),
    "strength": (["--data.strength", "4"], ["`strength` to be 0, 1, 2 or 3, but got 4"]),
    "range name": (["--data.augmentation", "{zoom: 2}"], ["Unknown name in `augmentation`", "zoom"]),
    "range value": (["--data.augmentation", "{flip: 2}"], ["`flip` to be a probability in [0, 1], but got 2"]),
    "smoothing": (["--model.label_smoothing", "1.0"], ["`label_smoothing` to be in [0, 1), but got 1.0", "0.8"]),
    "batch larger than N": (["--data.batch_size", "201"], ["batch_size=201 is larger than the 200", "at most 200"]),
    "subset larger than N": (["--data.subset", "5000"], ["`subset` to be at most the 1347", "but got 5000"]),
    "N = 1": (["--data.subset", "1"], ["at least 2 training samples", "has 1"]),
    "temperature": (["--model.head.temperature", "0"], ["`head.temperature` to be greater than 0, but got 0"]),
    "missing checkpoint": (["--ckpt_path", "no.ckpt"], ["'no.ckpt' does not exist"]),
    "text as checkpoint": (["--ckpt_path", "text.ckpt"], ["'text.ckpt'", "refused"]),
    "folder in the way": (["--run_dir", "file/run"], ["'file/run' cannot be written", "choose another `run_dir`"]),
    "file in the way": (["--run_dir", "file"], ["Run folder 'file' exists"]),
    "no end": (["--trainer.max_epochs", "-1"], ["`max_epochs` or `max_steps`"]),
    "probe without labels": (
        ["--data.source", "folder:good/a", "--data.batch_size=2", "--probe.enabled", "true"],
        ["'probe' is enabled", "no labels"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_status_one_and_nothing_overwritten(name, wrong, tmp_path, capfd):
    args, words = CASES[name]
    defaults = {"--data.subset": "200", "--data.batch_size": "50", "--run_dir": "run"}
    if "--data.source" in args:
        defaults = {"--run_dir": "run", "--data.batch_size": "2"}
    given = {arg.partition("=")[0] for arg in args}
    extra = [f"{key}={value}" for key, value in defaults.items() if key not in given]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    base = ["fit", "--model.backbone=resnet8", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    assert main([*base, *extra, *args]) == 1
    error = capfd.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("diet: error: ")]
    assert len(said) == 1, error
    assert "Traceback" not in error
    for word in words:
        assert word in said[0]
    for path, content in before.items():
        assert path.read_bytes() == content


def test_no_write_permission(monkeypatch, tmp_path, capfd):
    # root may write anywhere, so the answer of the system is put in its mouth
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, *more: "locked" not in str(path) and real(path, *more))
    assert main(["fit", "--config", "debug", "--run_dir", "locked"]) == 1
    assert "'locked' cannot be written (no write permission): choose another `run_dir`" in capfd.readouterr().err


def test_absent_tensorboard_is_answered_by_the_extra(monkeypatch, tmp_path, capfd):
    for name in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    logger = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs"]
    assert main(["fit", "--config", "debug", "--run_dir", "run", *logger]) == 1
    assert "TensorBoardLogger needs TensorBoard: pip install 'diet-lightning[tensorboard]'" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dropping_unreadable_images_lists_them_and_fixes_n(wrong):
    data = DIETDataModule("folder:one_broken", holdout=0.0, drop_unreadable=True, batch_size=2)
    with pytest.warns(
        UserWarning, match=r"Left out 1 unreadable image\(s\) of the train split[\s\S]*one_broken/a/2.png"
    ):
        assert data.num_samples == 5


class Stream(Dataset):
    def __getitem__(self, index):
        return torch.zeros(3, 4, 4)


def test_length_that_is_unknown_or_changes():
    with pytest.raises(DataError, match="Stream has no length"):
        DIETDataModule.from_datasets(Stream(), batch_size=2).setup()

    class Growing(Stream):
        count = 4

        def __len__(self):
            return self.count

    growing = Growing()
    data = DIETDataModule.from_datasets(growing, batch_size=2)
    data.setup()
    growing.count = 5
    with pytest.raises(DataError, match="changed from 4 to 5"):
        next(iter(data.eval_batches("train")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` to be at least 1, but got 0"),
        ({"image_size": -3}, "`image_size` to be at least 1, but got -3"),
        ({"holdout": 1.0}, r"`holdout` to be in \[0, 1\), but got 1.0"),
        ({"seed": -1}, "`seed` to be at least 0, but got -1"),
        ({"predict_split": "all"}, "`predict_split` to be one of .* but got 'all'"),
        ({"mean": [0.5]}, r"both `mean` and `std` or neither, but got mean=\[0.5\], std=None"),
    ],
)
def test_arguments_of_the_data_module(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DIETDataModule(**options)


def test_unknown_split_is_refused_and_a_loader_needs_no_set_up():
    data = DIETDataModule()
    assert len(data.val_dataloader().dataset) == 450
    assert len(data.train_dataloader().dataset) == 1347
    with pytest.raises(ConfigurationError, match=r"`split` to be one of .* but got 'vall'"):
        next(data.eval_batches("vall"))


def test_missing_split_is_named():
    data = DIETDataModule.from_datasets(torch.utils.data.TensorDataset(torch.rand(4, 3, 4, 4)), batch_size=2)
    data.setup("fit")
    with pytest.raises(DataError, match=r"has no test split: it has \['train'\]"):
        data.test_dataloader()
    assert issubclass(DataError, DIETError)
