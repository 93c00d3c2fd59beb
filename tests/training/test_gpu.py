"""Training on a GPU: no step waits for the device, and compiled code gives the same."""

from __future__ import annotations

import pytest
import torch
from helpers import ON_GPU, assert_near, image_data
from lightning.pytorch import Callback, seed_everything

from diet_lightning import DIETModule, FiniteGuard, HeadConfig, OnlineLinearProbe

pytestmark = ON_GPU


class RefuseWaits(Callback):
    """From its place among the callbacks to that of `AllowWaits`, a step that waits for the device raises an error."""

    steps = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx > 0:  # in an epoch's first step metrics are sent to the device
            self.steps += 1
            torch.cuda.set_sync_debug_mode("error")


class AllowWaits(Callback):
    def on_train_batch_end(self, *_):
        torch.cuda.set_sync_debug_mode("default")

    on_exception = on_train_batch_end


class Reader(Callback):
    def on_before_backward(self, trainer, pl_module, loss):
        loss.item()


# `sampled` must know how many distinct rows it has drawn
@pytest.mark.parametrize("kind", ["dense", "fused"])
def test_a_step_with_probe_and_guard_does_not_wait_for_the_device(make_trainer, kind):
    refuse = RefuseWaits()

    def fit(*callbacks):
        callbacks = [refuse, *callbacks, AllowWaits()]
        trainer = make_trainer(accelerator="cuda", precision="bf16-mixed", callbacks=callbacks)
        trainer.fit(DIETModule("resnet8", head=HeadConfig(kind)), image_data())

    fit(OnlineLinearProbe(), FiniteGuard())
    assert refuse.steps == 4  # of the two epochs of three
    with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
        fit(Reader())


@pytest.mark.parametrize("kind", ["dense", "fused"])
def test_a_compiled_module_trains_as_the_plain_one_does(make_trainer, kind, monkeypatch):
    # AdamW's first steps have the size of the rate, so that rounding to 10 bits changes their signs
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    def trained(**options):
        seed_everything(0, verbose=False)
        module = DIETModule("resnet8", head=HeadConfig(kind), **options)
        # whole batches only: another size would be compiled again, which takes half a minute
        make_trainer(accelerator="cuda", limit_val_batches=0).fit(module, image_data(48))
        return module

    start, plain, compiled = trained(lr=0.0), trained(lr=1e-2), trained(lr=1e-2, compile=True)
    for (name, exact), at_first in zip(plain.named_parameters(), start.parameters(), strict=True):
        assert_near(compiled.get_parameter(name), exact.double(), at_first.double(), 0.1)
