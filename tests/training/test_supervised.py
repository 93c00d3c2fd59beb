"""The supervised comparator: the same network, data and recipe with the user's labels as classes."""

from __future__ import annotations

import copy
import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TinyNet, image_data, images
from lightning.pytorch import Callback, seed_everything
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diet_lightning import DIETDataModule, DIETModule, HeadConfig, IndexedDataset, OnlineLinearProbe, SupervisedModule
from diet_lightning.__main__ import main
from diet_lightning.data.loaders import identity_collate
from diet_lightning.errors import CheckpointError, ConfigurationError, DataError
from diet_lightning.runs.comparison import read_run
from diet_lightning.training.trained_run import open_run

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


class Order(Callback):
    """The samples of every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(batch.index.clone())


def test_equals_a_plain_loop_over_the_same_batches(make_trainer):
    seed_everything(0, verbose=False)
    order, epochs = Order(), 3
    pixels, labels = images(48), torch.arange(48) % 4
    train = TensorDataset(pixels, labels)
    data = DIETDataModule.from_datasets(
        train, TensorDataset(images(20, seed=1), labels[:20]), batch_size=16, strength=0
    )
    module = SupervisedModule(TinyNet(dropout=0.0), num_classes=4, input_shape=[3, 8, 8], label_smoothing=0.1, lr=0.05)
    network = copy.deepcopy(module.backbone.model)
    layer = nn.Linear(12, 4, bias=False)
    layer.weight.data.copy_(module.head.weight.data)
    trainer = make_trainer(max_epochs=epochs, callbacks=[order])
    trainer.fit(module, data)

    colours = pixels.double() / 255
    mean, std = colours.mean((0, 2, 3), keepdim=True), colours.std((0, 2, 3), keepdim=True, correction=0)
    inputs = ((colours - mean) / std).float()
    optimizer = torch.optim.AdamW([*network.parameters(), *layer.parameters()], weight_decay=0.05)
    steps, warmup = len(order.steps), 1  # a tenth of nine steps, rounded
    assert steps == 9
    losses = []
    for step, index in enumerate(order.steps):
        wave = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        optimizer.param_groups[0]["lr"] = 0.05 * 16 / 256 * (1.0 if step < warmup else wave)
        loss = nn.functional.cross_entropy(layer(network(inputs[index])), labels[index], label_smoothing=0.1)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(module.head.weight, layer.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        module.backbone.model.convolution.weight, network.convolution.weight, rtol=1e-4, atol=1e-5
    )
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(np.mean(losses[-3:]), rel=1e-5)
    target = np.array([0.925, 0.025, 0.025, 0.025])
    floor = -(target * np.log(target)).sum()
    assert float(trainer.callback_metrics["train/loss_gap"]) == pytest.approx(np.mean(losses[-3:]) - floor, rel=1e-4)


def test_learns_digits_and_measures_itself_as_numpy_does(make_trainer):
    seed_everything(0, verbose=False)
    data = DIETDataModule("digits", batch_size=128, strength=1)
    module = SupervisedModule("resnet8_w16", label_smoothing=0.1, lr=1.6e-2)
    trainer = make_trainer(max_epochs=4, callbacks=[OnlineLinearProbe()])
    trainer.fit(module, data)
    assert module.head.weight.shape == (10, 64)
    assert module.num_samples == 1347
    accuracy = float(trainer.callback_metrics["val/supervised_top1"])
    assert accuracy > 0.85  # chance is 0.1
    assert {"train/loss", "train/loss_gap", "val/probe_top1", "val/supervised_top5"} <= set(trainer.callback_metrics)
    batches = list(data.eval_batches("val"))
    with torch.no_grad():
        features = module.eval()(torch.cat([batch.input for batch in batches])).numpy()
    predicted = (features @ module.head.weight.detach().numpy().T).argmax(1)
    labels = torch.cat([batch.label for batch in batches]).numpy()
    assert accuracy == pytest.approx(np.mean(predicted == labels))
    trainer.test(module, data, verbose=False)
    assert float(trainer.callback_metrics["test/supervised_top1"]) == pytest.approx(accuracy)  # digits' test is its val


@pytest.mark.parametrize("normalize", [True, False])
def test_logits_are_those_of_the_loss(normalize):
    module = SupervisedModule(
        nn.Flatten(),
        num_classes=5,
        input_shape=[3],
        label_smoothing=0.3,
        head=HeadConfig(normalize_features=normalize, normalize_rows=normalize, temperature=0.5),
    )
    features, label = torch.randn(7, 3), torch.arange(7) % 5
    plain = nn.functional.cross_entropy(module.head.logits(features), label, label_smoothing=0.3)
    torch.testing.assert_close(module.head(features, label), plain)


def supervised(**options):
    return SupervisedModule(TinyNet(), **options)


class Unlisted(Dataset):
    """Labels within the samples only; one has none."""

    def __init__(self, missing=None, wrong=0):
        self.missing, self.wrong = missing, wrong

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return images(1, seed=index)[0], self.wrong if index == self.missing else index % 4


def test_every_training_sample_needs_a_label(make_trainer, monkeypatch):
    monkeypatch.setattr(
        "diet_lightning.data.carried_labels.READ_TO_LABEL", 0
    )  # labels of too many samples to be read first
    labels = torch.arange(48) % 4
    labels[[11, 30]] = -1
    data = DIETDataModule.from_datasets(TensorDataset(images(), labels), batch_size=16)
    with pytest.raises(DataError, match=r"sample 11 has none \(-1\): label it, leave it out, or train with DIETModule"):
        make_trainer().fit(supervised(), data)
    make_trainer(max_epochs=1).fit(DIETModule(TinyNet()), data)  # which DIET does not mind
    for missing, wrong, message in (
        (9, -1, "sample 9 has none"),
        (9, 4, "labels in 0 … 3, but training sample 9 has 4"),
    ):
        unlisted = DIETDataModule.from_datasets(Unlisted(missing, wrong), batch_size=32, num_workers=0)
        with pytest.raises(DataError, match=message):
            make_trainer().fit(supervised(num_classes=4), unlisted)


def test_classes_must_be_known(make_trainer, monkeypatch):
    monkeypatch.setattr(
        "diet_lightning.data.carried_labels.READ_TO_LABEL", 0
    )  # labels of too many samples to be read first
    unlabelled = DIETDataModule.from_datasets(TensorDataset(images()), batch_size=16)
    with pytest.raises(ConfigurationError, match="training data list none: add labels, set `num_classes`"):
        make_trainer().fit(supervised(), unlabelled)
    with pytest.raises(DataError, match="sample 0 has none"):
        make_trainer().fit(supervised(num_classes=4), unlabelled)
    unlisted = DIETDataModule.from_datasets(Unlisted(), batch_size=16, num_workers=0)
    with pytest.raises(ConfigurationError, match="training data list none"):
        make_trainer().fit(supervised(), unlisted)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(supervised(num_classes=4), unlisted)
    assert math.isfinite(trainer.callback_metrics["train/loss"])
    with pytest.raises(
        ConfigurationError, match="num_classes=7, but the data module has 4 classes: leave `num_classes`"
    ):
        make_trainer().fit(supervised(num_classes=7), image_data())
    with pytest.raises(ConfigurationError, match="there is 1: give labels of at least 2 classes"):
        make_trainer().fit(supervised(), image_data(classes=1))
    loader = DataLoader(IndexedDataset(TensorDataset(images(8) / 255)), batch_size=4, collate_fn=identity_collate)
    with pytest.raises(ConfigurationError, match="set `num_classes` and `input_shape`"):
        make_trainer(limit_val_batches=0).fit(supervised(), loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": HeadConfig("fused")}, r"`head.kind` to be 'dense' for SupervisedModule, but got 'fused'"),
        ({"num_classes": 1, "input_shape": [3, 8, 8]}, "there is 1: give labels of at least 2 classes"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ConfigurationError, match=message):
        supervised(**options)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_checkpoint_says_which_it_was_and_resumes_as_that_only(make_trainer, tmp_path):
    def fit(module, epochs, **options):
        trainer = make_trainer(max_epochs=4, callbacks=[OnlineLinearProbe(), Stop(epochs)])
        trainer.fit(module, image_data(52, seed=3), weights_only=True, **options)
        return trainer

    class Stop(Callback):
        def __init__(self, epochs):
            self.epochs = epochs

        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch + 1 >= self.epochs

    seed_everything(1, verbose=False)
    whole = supervised()
    start = copy.deepcopy(whole._given[0].state_dict())
    fit(whole, 4)
    seed_everything(1, verbose=False)
    half = fit(supervised(), 2)
    half.save_checkpoint(tmp_path / "label.ckpt")
    assert torch.load(tmp_path / "label.ckpt", weights_only=True)["target"] == "label"
    resumed = supervised()
    fit(resumed, 4, ckpt_path=tmp_path / "label.ckpt")
    assert not torch.equal(start["convolution.weight"], whole.backbone.model.convolution.weight)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(
        CheckpointError,
        match=r"trained with SupervisedModule .*, but this run uses DIETModule .*: the rows of its head are other",
    ):
        fit(DIETModule(TinyNet()), 4, ckpt_path=tmp_path / "label.ckpt")
    fit(DIETModule(TinyNet()), 1).save_checkpoint(tmp_path / "index.ckpt")
    with pytest.raises(CheckpointError, match=r"trained with DIETModule .*, but this run uses SupervisedModule"):
        fit(supervised(), 4, ckpt_path=tmp_path / "index.ckpt")
    loaded = SupervisedModule.load_from_checkpoint(tmp_path / "label.ckpt", backbone=TinyNet())
    assert (loaded.target, loaded.head.num_samples, loaded.num_samples) == ("label", 4, 52)
    with pytest.raises(CheckpointError, match="use SupervisedModule"):
        DIETModule.load_from_checkpoint(tmp_path / "label.ckpt", backbone=TinyNet())


QUICK = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


def test_command_line_fits_tests_predicts_and_compares(tmp_path, capsys):
    for target in ("label", "index"):
        assert (
            main(
                [
                    "fit",
                    "--config",
                    "debug",
                    "--run_dir",
                    target,
                    f"--model.supervised={str(target == 'label').lower()}",
                    *QUICK,
                    "--trainer.max_epochs=1",
                    "--model.backbone=resnet8_w16",
                ]
            )
            == 0
        )
    rows = list(csv.DictReader((tmp_path / "label/metrics.csv").read_text().splitlines()))
    logged = {name for row in rows for name, value in row.items() if value}
    other = set(next(csv.reader((tmp_path / "index/metrics.csv").read_text().splitlines())))
    assert logged - other == {"val/supervised_top1", "val/supervised_top5"}
    checkpoint = str(tmp_path / "label/checkpoints/last.ckpt")
    capsys.readouterr()
    assert main(["test", checkpoint, *QUICK]) == 0
    assert "test/supervised_top1" in capsys.readouterr().out
    assert main(["predict", checkpoint, "--run_dir", "out", *QUICK]) == 0
    assert np.load("out/embeddings.npz")["features"].shape == (200, 64)
    assert main(["fit", "--ckpt_path", checkpoint, "--model.supervised", "false", *QUICK]) == 1
    assert "diet: error: The checkpoint was trained with SupervisedModule" in capsys.readouterr().err
    assert open_run("label").module.target == "label"
    assert read_run("label").group == ("digits, subset 200", "label", 0.8)
    assert read_run("label").record.num_samples == 200  # and not its ten classes
    assert main(["compare", "label", "index", "--metric", "val/supervised_top1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Loss gaps over indices and over labels are not comparable; accuracies are." in text
    assert not Path("compare/figure1.png").exists()


SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from training.test_supervised import Keep, parts
from lightning.pytorch import Trainer

module, data = parts(2)
Trainer(
    accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=3, logger=False, callbacks=[Keep()],
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
).fit(module, data)
"""


class Keep(Callback):
    """Writes weights and metrics from the rank's own process."""

    def on_fit_end(self, trainer, pl_module):
        metrics = {name: float(v) for name, v in trainer.callback_metrics.items() if name != "train/loss_step"}
        torch.save((pl_module.state_dict(), metrics), f"{trainer.world_size}.{trainer.global_rank}.pt")


def parts(ranks):
    """Module and data of a rank; the sampler of two ranks repeats one of the 21 validation samples."""
    seed_everything(5, verbose=False)
    network = TinyNet(dropout=0.0)
    module = SupervisedModule(network, num_classes=4, input_shape=[3, 8, 8], lr=0.05)
    train = TensorDataset(images(46), torch.arange(46) % 4)
    val = TensorDataset(images(21, seed=1), torch.arange(21) % 4)
    return module, DIETDataModule.from_datasets(train, val, batch_size=16 // ranks, seed=2)


@pytest.mark.slow
def test_two_processes_train_and_measure_as_one(make_trainer, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    make_trainer(max_epochs=3, callbacks=[Keep()]).fit(*parts(1))
    (one, metrics), (two, both) = (torch.load(f"{ranks}.0.pt", weights_only=True) for ranks in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
    assert both == pytest.approx(metrics, rel=1e-5)
    assert "val/supervised_top1" in both
