"""The online probe: learns, and leaves the backbone alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import TinyNet, image_data, images
from lightning.pytorch import Callback, seed_everything
from torch.utils.data import ConcatDataset, TensorDataset

from diet_lightning import (
    DIETDataModule,
    DIETModule,
    OnlineKNN,
    OnlineLinearProbe,
    SupervisedModule,
    default_callbacks,
)
from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import ConfigurationError


def fit(trainer, data, **settings):
    seed_everything(0, verbose=False)
    module = DIETModule(TinyNet(), **settings)
    trainer.fit(module, data)
    return module


def test_backbone_is_bitwise_the_same_with_and_without_probes(make_trainer):
    without = fit(make_trainer(max_epochs=3), image_data())
    probes = [OnlineLinearProbe(), OnlineLinearProbe("second", lr=0.1)]
    beside = fit(make_trainer(max_epochs=3, callbacks=probes), image_data())
    for name, value in without.state_dict().items():
        assert torch.equal(value, beside.state_dict()[name]), name
    assert not torch.equal(probes[0].classifier.weight, probes[1].classifier.weight)


def test_a_step_does_not_wait_for_the_device():
    """On the device `meta` numbers cannot be read, so that a step which waits for one of them fails."""
    device, probe = torch.device("meta"), OnlineLinearProbe(num_classes=10)
    module = SimpleNamespace(embed_dim=12, device=device)
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    trainer = SimpleNamespace(accumulate_grad_batches=2, is_last_batch=False, strategy=strategy)
    probe.on_fit_start(trainer, module)
    batch = DatumBatch(*(torch.zeros(16, dtype=torch.int64, device=device) for _ in range(3)))
    for step in range(4):
        outputs = {"features": torch.zeros(16, 12, device=device)}
        probe.on_train_batch_end(trainer, module, outputs, batch, step)


class Replay(Callback):
    """Repeats the probe's training in NumPy-like plain torch, from what a step hands out."""

    def __init__(self):
        self.batches = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append((outputs["features"].clone(), batch.label.clone()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_probe_equals_a_plain_classifier_on_the_same_features(make_trainer, accumulate):
    replay, probe = Replay(), OnlineLinearProbe(lr=0.02, weight_decay=0.1)
    trainer = make_trainer(max_epochs=2, callbacks=[replay, probe], accumulate_grad_batches=accumulate)
    start = []
    probe_start = probe.on_fit_start
    probe.on_fit_start = lambda *args: (
        probe_start(*args),
        start.append([p.detach().clone() for p in probe.classifier.parameters()]),
    )
    fit(trainer, image_data(44))  # 16, 16, 12: accumulation ends with a half-filled step
    layer = torch.nn.Linear(12, 4)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), start[0], strict=True):
            parameter.copy_(value)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02, weight_decay=0.1)
    for epoch in range(2):
        batches = replay.batches[3 * epoch : 3 * epoch + 3]
        for first in range(0, 3, accumulate):
            group = batches[first : first + accumulate]
            total = sum(torch.nn.functional.cross_entropy(layer(x), y, reduction="sum") for x, y in group)
            optimizer.zero_grad()
            (total / sum(len(y) for _, y in group)).backward()
            optimizer.step()
    for ours, theirs in zip(probe.classifier.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def separable(count, seed):
    """Images whose label is their brightest channel."""
    labels = torch.arange(count) % 3
    inputs = images(count, seed=seed) // 4
    inputs[torch.arange(count), labels] += 150
    return inputs, labels


def test_probe_learns_what_is_there_and_measures_it_rightly(make_trainer):
    train, val = separable(96, 0), separable(30, 1)
    data = DIETDataModule.from_datasets(TensorDataset(*train), TensorDataset(*val), batch_size=16, strength=0)
    probe = OnlineLinearProbe(lr=0.05)
    trainer = make_trainer(max_epochs=12, callbacks=[probe])
    module = fit(trainer, data, lr=1e-2)
    accuracy = float(trainer.callback_metrics["val/probe_top1"])
    assert accuracy > 0.9
    batches = list(data.eval_batches("val"))
    inputs, labels = torch.cat([b.input for b in batches]), torch.cat([b.label for b in batches])
    with torch.no_grad():
        predicted = probe.classifier(module.eval()(inputs)).argmax(dim=1).numpy()
    assert accuracy == pytest.approx(np.mean(predicted == labels.numpy()))
    assert "val/probe_top5" not in trainer.callback_metrics  # three classes only
    trainer.test(module, data, verbose=False)
    assert float(trainer.callback_metrics["test/probe_top1"]) == pytest.approx(accuracy)  # test is val here


def test_top5_where_there_are_more_classes(make_trainer):
    trainer = make_trainer(max_epochs=1, callbacks=[OnlineLinearProbe()])
    fit(trainer, image_data(classes=7))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert 0 <= metrics["val/probe_top1"] <= metrics["val/probe_top5"] <= 1
    assert metrics["train/probe_top1"] <= metrics["train/probe_top5"]


def test_unlabelled_samples_are_passed_over(make_trainer):
    labels = torch.arange(48) % 4
    half = torch.where(torch.arange(48) % 2 == 0, labels, -1)
    replay, probe = Replay(), OnlineLinearProbe()
    data = DIETDataModule.from_datasets(
        TensorDataset(images(), half), TensorDataset(images(20), labels[:20]), batch_size=16
    )
    trainer = make_trainer(max_epochs=1, callbacks=[replay, probe])
    fit(trainer, data)
    assert sum(int((y >= 0).sum()) for _, y in replay.batches) == 24
    assert "train/probe_top1" in trainer.callback_metrics
    assert torch.isfinite(probe.classifier.weight).all()


def test_missing_labels(make_trainer):
    unlabelled = TensorDataset(images())
    with pytest.raises(ConfigurationError, match="'probe' is enabled, but the training data have no labels"):
        fit(make_trainer(callbacks=[OnlineLinearProbe()]), DIETDataModule.from_datasets(unlabelled, batch_size=16))
    off = make_trainer(max_epochs=1, callbacks=[OnlineLinearProbe(enabled=None), OnlineLinearProbe("b", enabled=False)])
    fit(off, DIETDataModule.from_datasets(unlabelled, batch_size=16))
    assert not [name for name in off.callback_metrics if "top1" in name]
    labelled = TensorDataset(images(), torch.arange(48) % 4)
    data = DIETDataModule.from_datasets(labelled, TensorDataset(images(20)), batch_size=16)
    with pytest.raises(ConfigurationError, match="no sample of the val split has a label"):
        fit(make_trainer(callbacks=[OnlineLinearProbe()]), data)


def unlabelled_val(listed=True):
    train, val = TensorDataset(images(), torch.arange(48) % 4), TensorDataset(images(80))
    return DIETDataModule.from_datasets(train, val if listed else ConcatDataset([val]), batch_size=16)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("callback", [OnlineLinearProbe, OnlineKNN])
def test_a_split_without_labels_is_left_out_unless_the_callback_is_asked_for(make_trainer, callback, listed):
    trainer = make_trainer(max_epochs=2, callbacks=[callback(enabled=None)])
    fit(trainer, unlabelled_val(listed))
    assert [name for name in trainer.callback_metrics if name.startswith("val/")] == []
    trained = Replay()
    with pytest.raises(ConfigurationError, match="is enabled, but no sample of the val split has a label"):
        fit(make_trainer(max_epochs=1, callbacks=[callback(), trained]), unlabelled_val(listed))
    assert len(trained.batches) == (0 if listed else 3)  # before the first epoch, where it is known


def test_callbacks_that_nobody_asked_for_do_not_stop_a_run(make_trainer, tmp_path):
    for data in (unlabelled_val(), DIETDataModule.from_datasets(TensorDataset(images()), batch_size=16)):
        callbacks = default_callbacks(tmp_path / str(data.num_classes), progress_bar=False)
        fit(make_trainer(max_epochs=1, callbacks=callbacks, enable_checkpointing=True), data)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(SupervisedModule(TinyNet()), unlabelled_val())
    assert "val/supervised_top1" not in trainer.callback_metrics


def test_a_second_fit_starts_with_a_new_classifier(make_trainer):
    probe = OnlineLinearProbe()
    fit(make_trainer(max_epochs=1, callbacks=[probe]), image_data())
    first = probe.classifier
    fit(make_trainer(max_epochs=1, callbacks=[probe]), image_data(classes=7))
    assert (first.out_features, probe.classifier.out_features) == (4, 7)
    fresh = OnlineLinearProbe()
    fit(make_trainer(max_epochs=1, callbacks=[fresh]), image_data(classes=7))
    assert torch.equal(probe.classifier.weight, fresh.classifier.weight)


def test_a_second_fit_of_nearest_neighbours_has_the_classes_and_the_bank_of_its_own_data(make_trainer):
    used = OnlineKNN(k=3)
    fit(make_trainer(max_epochs=1, callbacks=[used]), image_data())
    accuracies = []
    for knn in (used, OnlineKNN(k=3)):
        trainer = make_trainer(max_epochs=1, callbacks=[knn])
        fit(trainer, image_data(classes=7))
        assert (knn.num_classes, sum(len(labels) for _, labels in knn._parts)) == (7, 48)
        accuracies.append(float(trainer.callback_metrics["val/knn_top5"]))
    assert accuracies[0] == accuracies[1]


def test_a_probe_that_was_measured_untrained_is_trained_by_a_later_fit(make_trainer):
    probe = OnlineLinearProbe()
    trainer = make_trainer(max_epochs=1, callbacks=[probe])
    module = DIETModule(TinyNet(), num_samples=48, input_shape=[3, 8, 8])
    trainer.validate(module, image_data(), verbose=False)
    trainer.fit(module, image_data())
    assert "val/probe_top1" in trainer.callback_metrics


def test_a_checkpoint_of_fewer_classes_starts_over(make_trainer, tmp_path, caplog):
    pixels = images()
    few, many = (TensorDataset(pixels, torch.arange(48) % count) for count in (3, 6))
    trainer = make_trainer(max_epochs=1, callbacks=[OnlineLinearProbe()])
    fit(trainer, DIETDataModule.from_datasets(few, batch_size=16))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    probe = OnlineLinearProbe()
    again = make_trainer(max_epochs=2, callbacks=[probe])
    with caplog.at_level("INFO"):
        again.fit(
            DIETModule(TinyNet()),
            DIETDataModule.from_datasets(many, batch_size=16),
            ckpt_path=tmp_path / "x.ckpt",
            weights_only=True,
        )
    assert probe.classifier.out_features == 6
    assert "starts over: it has 3 classes in the checkpoint, and the data have 6" in caplog.text


def test_label_beyond_the_number_of_classes_is_refused(make_trainer):
    with pytest.raises(
        ConfigurationError, match="has 2 classes, but a sample has label 3: set `num_classes` to at least 4"
    ):
        fit(make_trainer(callbacks=[OnlineLinearProbe(num_classes=2)]), image_data())


def test_an_untrained_probe_says_so():
    with pytest.raises(ConfigurationError, match="'probe' has not been trained yet"):
        _ = OnlineLinearProbe().classifier


def test_state_is_plain_and_kept_apart_by_name(make_trainer, tmp_path):
    probes = [OnlineLinearProbe(), OnlineLinearProbe("second", lr=0.1)]
    trainer = make_trainer(max_epochs=1, callbacks=probes)
    module = fit(trainer, image_data())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    states = torch.load(tmp_path / "x.ckpt", weights_only=True)["callbacks"]
    assert {"OnlineLinearProbe[probe]", "OnlineLinearProbe[second]"} <= set(states)
    fresh = [OnlineLinearProbe(), OnlineLinearProbe("second", lr=0.1)]
    again = make_trainer(callbacks=fresh)
    again.validate(module, image_data(), ckpt_path=tmp_path / "x.ckpt", weights_only=True, verbose=False)
    for old, new in zip(probes, fresh, strict=True):
        assert torch.equal(old.classifier.weight, new.classifier.weight)
    untrained = make_trainer(callbacks=[OnlineLinearProbe()])
    untrained.validate(module, image_data(), verbose=False)
    assert "val/probe_top1" not in untrained.callback_metrics


def test_a_probe_that_was_validated_untrained_is_trained_by_a_later_fit(make_trainer, caplog):
    module, data, probe = (
        DIETModule(TinyNet(), num_samples=48, input_shape=[3, 8, 8]),
        image_data(),
        OnlineLinearProbe(),
    )
    make_trainer(callbacks=[probe]).validate(module, data, verbose=False)
    assert "Probe 'probe' is untrained: pass `ckpt_path` to evaluate one." in caplog.text
    trainer = make_trainer(callbacks=[probe])
    trainer.fit(module, data)
    assert {"train/probe_top1", "val/probe_top1"} <= set(trainer.callback_metrics)
