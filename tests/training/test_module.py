"""DIETModule in a Trainer: recipe, hyper-parameters, checkpoints, guard."""

from __future__ import annotations

import math
from functools import partialmethod

import pytest
import torch
from helpers import TinyNet, image_data, images
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from diet_lightning import (
    DIETDataModule,
    DIETModule,
    FiniteGuard,
    IndexedDataset,
    InterruptCheckpoint,
    OnlineLinearProbe,
)
from diet_lightning.data.loaders import identity_collate
from diet_lightning.errors import CheckpointError, ConfigurationError, NonFiniteError
from diet_lightning.runs.checkpoint import LeanCheckpointIO


def test_reads_n_and_shape_from_the_data_and_keeps_them(make_trainer):
    module, data = DIETModule("resnet8"), image_data()
    make_trainer(max_epochs=1).fit(module, data)
    assert module.num_samples == 48
    assert module.head.weight.shape == (48, 128)
    assert module.hparams["input_shape"] == [3, 8, 8]
    assert module.embed_dim == 128


def test_a_network_that_is_not_built_yet_says_so():
    for use in (lambda module: module.embed_dim, lambda module: module(torch.zeros(1, 3, 8, 8))):
        with pytest.raises(ConfigurationError, match=r"not built yet.* give `num_samples` and `input_shape`"):
            use(DIETModule("resnet8"))


class Record(Callback):
    def __init__(self):
        self.lr, self.losses, self.groups = [], [], None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        assert not outputs["features"].requires_grad

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lr.append(optimizer.param_groups[0]["lr"])
        self.groups = {group["name"]: group for group in optimizer.param_groups}
        self.kind = type(optimizer)


def test_recipe_is_the_papers(make_trainer):
    record = Record()
    trainer = make_trainer(max_epochs=200, max_steps=150, accumulate_grad_batches=3, callbacks=[record])
    trainer.fit(DIETModule(TinyNet()), image_data(num_workers=0))
    peak = 1e-3 * 16 * 3 / 256  # one step of 3 × 16 samples an epoch of 48
    assert record.kind is torch.optim.AdamW
    assert {name: group["weight_decay"] for name, group in record.groups.items()} == {"backbone": 0.05, "head": 0.05}
    # Trainer.max_steps is the end of this run: 150 epochs, so 10 of warm-up
    assert record.lr[0] == pytest.approx(peak / 10)
    assert record.lr[9] == pytest.approx(peak)
    assert record.lr[10:] == pytest.approx([peak * 0.5 * (1 + math.cos(math.pi * s / 140)) for s in range(140)])


def test_short_run_warms_up_for_a_tenth(make_trainer):
    record = Record()
    make_trainer(max_epochs=20, callbacks=[record]).fit(DIETModule(TinyNet()), image_data())
    assert record.lr.index(max(record.lr)) == 20 * 3 // 10 - 1


def test_logs_loss_and_its_gap(make_trainer):
    record, trainer = Record(), None
    trainer = make_trainer(max_epochs=1, callbacks=[record])
    trainer.fit(DIETModule(TinyNet(), label_smoothing=0.5), image_data())
    own, rest = 0.5 + 0.5 / 48, 0.5 / 48
    floor = -own * math.log(own) - 47 * rest * math.log(rest)
    mean = sum(record.losses) / 3  # three batches of 16
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(mean, rel=1e-5)
    assert float(trainer.callback_metrics["train/loss_gap"]) == pytest.approx(mean - floor, abs=1e-5)


def test_same_seed_gives_the_same_weights_and_another_does_not(make_trainer):
    def weights(seed):
        seed_everything(seed, verbose=False)
        module = DIETModule(TinyNet())
        make_trainer().fit(module, image_data(seed=seed))
        return module.head.weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_precisions_train(make_trainer, precision):
    record = Record()
    make_trainer(max_epochs=1, precision=precision, callbacks=[record]).fit(DIETModule(TinyNet()), image_data())
    assert all(math.isfinite(loss) for loss in record.losses)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_plain_loaders_need_n_and_shape(make_trainer):
    data = IndexedDataset(TensorDataset(images(20).float() / 255))
    loader = DataLoader(data, batch_size=10, collate_fn=identity_collate, shuffle=True)
    quiet = {"limit_val_batches": 0}
    with pytest.raises(ConfigurationError, match="pass a DIETDataModule to the Trainer, or set `num_samples`"):
        make_trainer(**quiet).fit(DIETModule(TinyNet()), loader)
    module = DIETModule(TinyNet(), num_samples=20, input_shape=[3, 8, 8])
    before = module.head.weight.clone()
    make_trainer(max_epochs=1, **quiet).fit(module, loader)
    assert not torch.equal(before, module.head.weight)


def test_n_that_is_not_the_datas_is_refused(make_trainer):
    with pytest.raises(ConfigurationError, match="num_samples=7, but the data module has 48"):
        make_trainer().fit(DIETModule(TinyNet(), num_samples=7), image_data())


def test_a_second_fit_with_another_n_asks_for_a_new_module(make_trainer):
    module = DIETModule(TinyNet())
    make_trainer(max_epochs=1).fit(module, image_data())
    with pytest.raises(
        ConfigurationError, match=r"num_samples=48, but .* has 20 samples: make a new module for other data"
    ):
        make_trainer(max_epochs=1).fit(module, image_data(20))


@pytest.mark.parametrize("name", ["lr", "weight_decay", "warmup_epochs"])
def test_negative_settings_are_refused(name):
    with pytest.raises(ConfigurationError, match=f"`{name}` to be at least 0, but got -1"):
        DIETModule(**{name: -1})


@pytest.mark.parametrize("head", ["fused", {"kind": "fused"}])
def test_head_that_is_not_a_configuration_is_refused(head):
    with pytest.raises(ConfigurationError, match=r"`head` to be a HeadConfig\('fused', …\), but got .*fused"):
        DIETModule("resnet8", head=head)


def test_a_run_without_an_end_is_refused(make_trainer):
    with pytest.raises(ConfigurationError, match="`max_epochs` or `max_steps`"):
        make_trainer(max_epochs=-1).fit(DIETModule(TinyNet()), image_data())


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(make_trainer, tmp_path):
    """A checkpoint of a custom backbone and one of a named backbone."""

    def train(backbone, data=None, name="run"):
        module = DIETModule(backbone)
        trainer = make_trainer(max_epochs=1)
        trainer.fit(module, data or image_data())
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        return module, tmp_path / f"{name}.ckpt"

    return train


def test_checkpoint_is_plain_and_loads_a_named_backbone(trained):
    module, path = trained("resnet8")
    saved = torch.load(path, weights_only=True)
    assert saved["hyper_parameters"]["num_samples"] == 48
    assert saved["DIETDataModule"]["num_samples"] == 48
    assert len(saved["DIETDataModule"]["fingerprint"]) == 32
    loaded = DIETModule.load_from_checkpoint(path)
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(module.eval()(x), loaded.eval()(x))


def test_checkpoint_of_an_own_backbone_asks_for_it(trained):
    module, path = trained(TinyNet())
    with pytest.raises(
        CheckpointError, match=r"pass the untrained module as DIETModule.load_from_checkpoint\(path, backbone"
    ):
        DIETModule.load_from_checkpoint(path)
    loaded = DIETModule.load_from_checkpoint(path, backbone=TinyNet())
    assert torch.equal(loaded.backbone.model.convolution.weight, module.backbone.model.convolution.weight)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_other_n_or_other_data_are_refused_on_resuming(trained, make_trainer):
    _, path = trained(TinyNet())

    def resume(data):
        make_trainer(max_epochs=2).fit(DIETModule(TinyNet()), data, ckpt_path=path, weights_only=True)

    with pytest.raises(CheckpointError, match=r"trained on 48 samples, but .* has 40"):
        resume(image_data(40))
    others = DIETDataModule.from_datasets(TensorDataset(images(48, seed=9)), batch_size=16)
    with pytest.raises(CheckpointError, match=r"other data of the same length \(N=48\)"):
        resume(others)
    loader = DataLoader(IndexedDataset(TensorDataset(images(20) / 255)), batch_size=10, collate_fn=identity_collate)
    module = DIETModule(TinyNet(), num_samples=20, input_shape=[3, 8, 8])
    with pytest.raises(CheckpointError, match="trained on 48 samples, but this run has 20"):
        make_trainer(max_epochs=2, limit_val_batches=0).fit(module, loader, ckpt_path=path, weights_only=True)


def test_other_network_is_refused_on_resuming(trained, make_trainer):
    _, path = trained("resnet8")
    with pytest.raises(CheckpointError, match=r"network differs .* use the `backbone`, `stem` and `head.kind`"):
        make_trainer().fit(DIETModule("resnet18"), image_data(), ckpt_path=path, weights_only=True)


def test_ignored_learning_rate_is_said(trained, make_trainer):
    _, path = trained(TinyNet())
    with pytest.warns(UserWarning, match="checkpoint's lr=0.001; lr=0.5 is ignored"):
        make_trainer().fit(DIETModule(TinyNet(), lr=0.5), image_data(), ckpt_path=path, weights_only=True)


def test_evaluation_on_other_data_takes_the_checkpoints_n(trained, make_trainer):
    module, path = trained("resnet8")
    other = DIETModule("resnet8")
    predictions = make_trainer().predict(other, image_data(30), ckpt_path=path, weights_only=True)
    assert sum(len(batch["features"]) for batch in predictions) == 30
    assert torch.equal(other.head.weight, module.head.weight)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_damaged_foreign_and_malicious_checkpoints_are_refused(trained, make_trainer, tmp_path, capfd):
    _, path = trained("resnet8")
    (tmp_path / "cut.ckpt").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    torch.save({"state_dict": {}, "x": Evil()}, tmp_path / "evil.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "state_dict": {}}, tmp_path / "empty.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    for name, message in {
        "cut": "cannot be read .* truncated or damaged",
        "evil": "could run code, or is not a checkpoint: it is refused",
        "list": "is not a Lightning checkpoint",
        "text": "is refused|cannot be read",
        "missing": "does not exist",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            DIETModule.load_from_checkpoint(tmp_path / f"{name}.ckpt")
        trainer = make_trainer(plugins=[LeanCheckpointIO()])
        with pytest.raises(CheckpointError, match=message):
            trainer.fit(DIETModule("resnet8"), image_data(), ckpt_path=tmp_path / f"{name}.ckpt")
    with pytest.raises(CheckpointError, match="holds no head"):
        DIETModule.load_from_checkpoint(tmp_path / "empty.ckpt")
    assert "code ran" not in capfd.readouterr().out


def test_a_backbone_of_ones_own_is_kept_once():
    state = DIETModule(TinyNet(), num_samples=9, input_shape=[3, 8, 8]).state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_steps_alone_may_end_a_run(make_trainer):
    record = Record()
    make_trainer(max_epochs=None, max_steps=30, callbacks=[record]).fit(DIETModule(TinyNet()), image_data(48))
    assert len(record.lr) == 30
    assert record.lr.index(max(record.lr)) == 2  # a tenth of the run


def test_an_interrupted_save_leaves_the_file_that_was_there(trained, tmp_path):
    _, path = trained("resnet8")
    before = path.read_bytes()

    class Stop:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LeanCheckpointIO().save_checkpoint({"weight": torch.zeros(1000), "x": Stop()}, path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*partial"))


def test_a_plugin_of_the_users_own_is_kept(make_trainer):
    class Own(TorchCheckpointIO):
        pass

    trainer = make_trainer(max_steps=1, plugins=[Own()])
    trainer.fit(DIETModule("resnet8"), image_data())
    assert type(trainer.strategy.checkpoint_io) is Own


# -- guard -------------------------------------------------------------------------------------------------------------


def divide_by_mean(batch, generator):
    """A faulty augmentation: a black image becomes NaN."""
    return batch / batch.mean(dim=(1, 2, 3), keepdim=True)


def test_guard_names_the_sample_whose_input_is_nan_and_saves_the_weights_before(make_trainer, tmp_path):
    inputs = images(32)
    inputs[13] = 0
    data = DIETDataModule.from_datasets(TensorDataset(inputs), batch_size=8, augmentation=divide_by_mean)
    module = DIETModule(TinyNet())
    trainer = make_trainer(max_epochs=3, callbacks=[FiniteGuard(), InterruptCheckpoint(tmp_path)])
    with pytest.raises(NonFiniteError, match=r"loss is nan at step \d.* index 13 are not finite"):
        trainer.fit(module, data)
    assert all(torch.isfinite(p).all() for p in module.parameters())
    if trainer.global_step:
        saved = torch.load(tmp_path / "interrupted.ckpt", weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in saved.values())


class Overflow(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return x.flatten(1)[:, :4] * self.scale * (1e38 if self.calls > 2 else 1.0) * 1e5


def test_guard_blames_rate_and_precision_where_inputs_are_fine(make_trainer):
    trainer = make_trainer(callbacks=[FiniteGuard()])
    with pytest.raises(NonFiniteError, match=r"at step 2 \(epoch 0, lr .* its inputs are finite .*lower `lr`"):
        trainer.fit(DIETModule(Overflow()), image_data())


# -- speed -------------------------------------------------------------------------------------------------------------


def count_graphs(monkeypatch):
    """Counts what is compiled; that code is generated for it is torch's business, and takes long."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch._dynamo.utils.counters


class Graphs(Callback):
    """Graphs compiled by the end of each epoch."""

    def __init__(self, counters):
        self.counters, self.seen = counters, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append(self.counters["stats"]["unique_graphs"])


@pytest.mark.filterwarnings("ignore:.*CUDA.*")
def test_a_compiled_backbone_is_the_same_and_is_not_compiled_again_after_an_epoch(make_trainer, monkeypatch):
    counters = count_graphs(monkeypatch)
    graphs = Graphs(counters)

    def trained(**options):
        seed_everything(0)
        module = DIETModule("resnet8", **options)
        # the last batch of an epoch and of validation are smaller
        make_trainer(max_epochs=4, callbacks=[graphs, OnlineLinearProbe()]).fit(module, image_data(41))
        return module

    plain, compiled = trained(), trained(compile=True)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert graphs.seen[:4] == [0] * 4
    assert 0 < graphs.seen[5] == graphs.seen[6] == graphs.seen[7] <= 4
    assert not counters["graph_break"]


def test_channels_lie_last_and_the_result_is_the_same(make_trainer):
    def trained(last):
        seed_everything(0)
        module = DIETModule("resnet8", channels_last=last)
        make_trainer(max_epochs=1).fit(module, image_data())
        return module

    last, first = trained(True), trained(False)
    assert last.backbone.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert first.backbone.model[0].weight.is_contiguous()
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(last.eval()(x), first.eval()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("last", [True, False])
def test_a_run_goes_on_in_another_layout(make_trainer, tmp_path, last):
    def fit(epochs, last, checkpoint=None):
        seed_everything(0)
        module = DIETModule("resnet8", channels_last=last, lr=1e-2)
        every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        trainer = make_trainer(max_epochs=4, callbacks=[every], enable_checkpointing=True)
        trainer.fit(module, image_data(), ckpt_path=checkpoint)
        return module, trainer.optimizers[0]

    whole, _ = fit(4, last)
    resumed, optimizer = fit(4, not last, tmp_path / "epoch=1.ckpt")
    weight = resumed.backbone.model[0].weight
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_the_guard_sees_every_batch_of_an_accumulated_step(make_trainer):
    inputs = images(32)
    inputs[13] = 0
    data = DIETDataModule.from_datasets(TensorDataset(inputs), batch_size=8, augmentation=divide_by_mean)
    module = DIETModule(TinyNet())
    with pytest.raises(NonFiniteError, match=r"loss is nan at step 0.* index 13 are not finite"):
        make_trainer(accumulate_grad_batches=4, callbacks=[FiniteGuard()]).fit(module, data)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_images_come_in_the_precision_of_the_run(make_trainer, precision, dtype):
    class See(Callback):
        def __init__(self):
            self.dtypes = set()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.dtypes.add(batch.input.dtype)

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.dtypes.add(batch.input.dtype)

    see = See()
    make_trainer(max_epochs=1, precision=precision, callbacks=[see]).fit(DIETModule(TinyNet()), image_data())
    assert see.dtypes == {dtype}


def test_volumes_keep_their_layout(make_trainer):
    backbone = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    data = DIETDataModule.from_datasets(TensorDataset(torch.rand(16, 1, 4, 4, 4)), batch_size=8, strength=0)
    make_trainer(max_epochs=1).fit(module := DIETModule(backbone), data)
    assert module.embed_dim == 4


def test_lightnings_overfit_batches_works_on_data_in_memory(make_trainer):
    trainer = make_trainer(max_epochs=2, overfit_batches=2)
    with pytest.warns(UserWarning, match="overfit"):
        trainer.fit(DIETModule(TinyNet()), image_data())
    assert trainer.global_step == 4
