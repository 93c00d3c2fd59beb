"""Lightning's callbacks that copy, average or freeze the network before the Trainer has set it up."""

from __future__ import annotations

import pytest
import torch
from helpers import TinyNet, image_data
from lightning.pytorch import Callback, LightningDataModule, seed_everything
from lightning.pytorch.callbacks import BackboneFinetuning, EMAWeightAveraging, StochasticWeightAveraging

from diet_lightning import DIETModule, HeadConfig, LeanCheckpointIO
from diet_lightning.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides")


class Weights(Callback):
    """The trained weights after every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({name: value.detach().clone() for name, value in pl_module.named_parameters()})


def test_the_network_is_built_once_however_often_it_is_asked_for():
    module = DIETModule("resnet8", num_samples=9, input_shape=[3, 8, 8])
    head, backbone = module.head, module.backbone
    module.configure_model()
    module.configure_model()
    assert module.head is head
    assert module.backbone is backbone
    with pytest.raises(ConfigurationError, match="DIETModule does not know the number of samples"):
        DIETModule("resnet8").configure_model()


@pytest.mark.parametrize("kind", ["dense", "fused"])
def test_moving_average_of_every_step_is_in_the_checkpoint(make_trainer, tmp_path, kind):
    seed_everything(1, verbose=False)
    weights, decay = Weights(), 0.8
    trainer = make_trainer(max_epochs=3, callbacks=[weights, EMAWeightAveraging(decay=decay)])
    module = DIETModule(TinyNet(), head=HeadConfig(kind), lr=0.1)
    trainer.fit(module, image_data())
    expected = weights.steps[0]
    for step in weights.steps[1:]:
        expected = {name: decay * value + (1 - decay) * step[name] for name, value in expected.items()}
    trainer.save_checkpoint(tmp_path / "ema.ckpt")
    loaded = DIETModule.load_from_checkpoint(tmp_path / "ema.ckpt", backbone=TinyNet())
    assert loaded.hparams["input_shape"] == [3, 8, 8]
    for name, value in loaded.named_parameters():
        torch.testing.assert_close(value, expected[name])
        assert not torch.allclose(value, weights.steps[-1][name], rtol=1e-3, atol=1e-4)


def test_a_run_with_a_moving_average_resumes_exactly(make_trainer, tmp_path):
    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / f"{len(trainer.callbacks)}-{trainer.current_epoch}.ckpt")

    def fit(*callbacks, ckpt_path=None):
        seed_everything(1, verbose=False)
        module = DIETModule(TinyNet(), lr=0.1)
        trainer = make_trainer(max_epochs=3, callbacks=[*callbacks, EMAWeightAveraging(decay=0.8)])
        trainer.fit(module, image_data(seed=3), ckpt_path=ckpt_path, weights_only=True)
        return module

    whole = fit(Save())
    resumed = fit(ckpt_path=next(tmp_path.glob("*-1.ckpt")))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.parametrize("kind", ["dense", "fused"])
def test_stochastic_average_ends_with_the_mean_of_the_epochs(make_trainer, kind):
    seed_everything(1, verbose=False)
    weights, epochs, start = Weights(), 5, 2
    # Lightning counts epochs from 1 and averages the weights that each epoch from `start` on begins with
    callbacks = [weights, StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=start, annealing_epochs=1)]
    module = DIETModule(TinyNet(), head=HeadConfig(kind), lr=0.1)
    make_trainer(max_epochs=epochs, callbacks=callbacks).fit(module, image_data())
    ends = [weights.steps[3 * epoch - 1] for epoch in range(start - 1, epochs)]  # three steps an epoch
    for name, value in module.named_parameters():
        expected = torch.stack([end[name] for end in ends]).mean(0)
        torch.testing.assert_close(value, expected, msg=name)
        assert not torch.allclose(value, weights.steps[-1][name], rtol=1e-3, atol=1e-4)


class OtherData(LightningDataModule):
    """A data module that does not build the network."""

    def __init__(self):
        super().__init__()
        self.own = image_data()
        self.num_samples, self.input_shape, self.batch_size = 48, (3, 8, 8), 16

    def train_dataloader(self):
        return self.own.train_dataloader()


@pytest.mark.parametrize(
    ("callback", "options", "data", "message"),
    [
        (BackboneFinetuning(), {}, image_data, "BackboneFinetuning adds parameters .*: use LastBlocks"),
        (EMAWeightAveraging(), {"head": HeadConfig("sampled")}, image_data, "EMAWeightAveraging cannot average rows"),
        (
            StochasticWeightAveraging(0.1),
            {},
            OtherData,
            "StochasticWeightAveraging copies the network before N is known",
        ),
    ],
    ids=["finetuning", "sampled", "other data"],
)
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_what_would_silently_do_something_else_is_refused(make_trainer, callback, options, data, message):
    with pytest.raises(ConfigurationError, match=message):
        make_trainer(callbacks=[callback]).fit(DIETModule(TinyNet(), **options), data())


def test_a_trainer_keeps_the_checkpoint_plugin_that_it_has(make_trainer):
    for plugins in ([], [LeanCheckpointIO()]):
        trainer = make_trainer(max_steps=1, plugins=plugins)
        before = trainer.strategy.checkpoint_io
        trainer.fit(DIETModule(TinyNet()), image_data())
        assert trainer.strategy.checkpoint_io is before
