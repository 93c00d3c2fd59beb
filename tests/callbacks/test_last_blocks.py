"""Continued pretraining: what trains when, exactly resumed, and the same on every rank."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers import image_data
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torchvision.models.resnet import BasicBlock

from diet_lightning import DIETModule, HeadConfig, LastBlocks, create_backbone
from diet_lightning.callbacks.last_blocks import last_blocks
from diet_lightning.errors import ConfigurationError

# Lightning's ModelCheckpoint remarks on folders that these tests choose on purpose

EPOCHS, STEPS = 4, 2  # 24 samples: batches of 16 and 8


class Net(nn.Sequential):
    """Three residual blocks with dropout, after a stem with a batch norm: 16 dimensions."""

    def __init__(self):
        def block():
            return nn.Sequential(BasicBlock(16, 16), nn.Dropout(0.2))

        stem = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)]
        super().__init__(*stem, block(), block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16))


class Watch(Callback):
    """Keeps copies of the weights from before each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.seen.append((trainer.global_step, state, pl_module.backbone.model[2].training))


def fit(make_trainer, *callbacks, head_only=0.5, ckpt_path=None, data=None, regime=True, **options):
    seed_everything(1, verbose=False)
    settings = {name: options.pop(name) for name in ("head", "lr") if name in options}
    head = HeadConfig(settings.pop("head", "dense"), normalize_features=True)
    module = DIETModule(Net(), head=head, **{"lr": 1e-2, **settings})
    watch = Watch()
    first = [LastBlocks(2, head_only)] if regime else []
    options = {"max_epochs": EPOCHS, "enable_checkpointing": bool(callbacks), **options}
    trainer = make_trainer(callbacks=[*first, watch, *callbacks], **options)
    trainer.fit(module, data or image_data(24, seed=3), ckpt_path=ckpt_path, weights_only=True)
    return module, watch


def changed(left, right):
    return {name for name, value in left.items() if not torch.equal(value, right[name])}


def test_head_alone_then_the_last_blocks_and_nothing_else(make_trainer):
    module, watch = fit(make_trainer)
    states = [state for _, state, _ in watch.seen] + [module.state_dict()]
    half = EPOCHS // 2 * STEPS
    for before, after in pairwise(states[: half + 1]):
        assert changed(before, after) == {"head.weight"}
    parts = {
        name for name in states[0] if name.startswith(("backbone.model.3.", "backbone.model.4.", "backbone.model.7."))
    }
    for before, after in pairwise(states[half:]):
        assert changed(before, after) == parts | {"head.weight"}  # with the batch norms' statistics and counts
    assert not any(training for *_, training in watch.seen)  # block 2 of three
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(part.training for part in module.modules())


def test_first_phase_is_a_linear_classifier_on_frozen_features(make_trainer):
    """Against a loop of plain torch over the same batches."""
    data = image_data(24, seed=3, strength=0, batch_size=24)
    _, watch = fit(make_trainer, head_only=0.75, data=data)
    backbone = Net()
    initial = {name.removeprefix("backbone.model."): value for name, value in watch.seen[0][1].items()}
    backbone.load_state_dict({name: initial[name] for name in backbone.state_dict()})
    batch = next(iter(data.eval_batches("train")))
    with torch.no_grad():
        features = nn.functional.normalize(backbone.eval()(batch.input.contiguous(memory_format=torch.channels_last)))
    rows = nn.Parameter(initial["head.weight"].clone())
    optimizer = torch.optim.AdamW([rows], weight_decay=0.05)
    for step in range(3):  # no warm-up: a tenth of four steps is none
        optimizer.param_groups[0]["lr"] = (
            1e-2 * 24 / 256 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 4)).item())
        )
        loss = nn.functional.cross_entropy(features @ rows.T, batch.index, label_smoothing=0.8)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(watch.seen[3][1]["head.weight"], rows.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_kinds_of_head_agree(make_trainer):
    dense, fused = (fit(make_trainer, head=kind)[0].state_dict() for kind in ("dense", "fused"))
    for name, value in dense.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-4, atol=1e-5)


def every(folder, **options):
    return ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, **options)


@pytest.mark.slow
def test_resumed_in_either_phase_is_the_run_that_never_stopped(make_trainer, tmp_path):
    options = {"every_n_train_steps": 1}
    whole, _ = fit(make_trainer, every(tmp_path, **options))
    for epoch, step in ((1, 3), (1, 4), (2, 5)):  # within the first phase, between them, within the second
        again = every(tmp_path / str(step), **options)
        resumed, watch = fit(make_trainer, again, ckpt_path=tmp_path / f"epoch={epoch}-step={step}.ckpt")
        assert watch.seen[0][0] == step
        assert changed(whole.state_dict(), resumed.state_dict()) == set()


@pytest.mark.slow
def test_resumed_from_the_end_of_an_epoch_with_accumulation(make_trainer, tmp_path):
    options = {"accumulate_grad_batches": 2}
    whole, _ = fit(make_trainer, every(tmp_path, save_on_train_epoch_end=True), **options)
    for epoch in (0, 1):
        again = every(tmp_path / str(epoch), save_on_train_epoch_end=True)
        checkpoint = tmp_path / f"epoch={epoch}-step={epoch + 1}.ckpt"
        resumed, _ = fit(make_trainer, again, ckpt_path=checkpoint, **options)
        assert changed(whole.state_dict(), resumed.state_dict()) == set()


def test_share_is_rounded_to_epochs_and_may_be_none(make_trainer):
    plain, _ = fit(make_trainer, head_only=0.0, max_epochs=None, max_steps=5)
    _, watch = fit(make_trainer, head_only=0.6)  # 2.4 epochs
    frozen = [not changed(watch.seen[0][1], state) - {"head.weight"} for _, state, _ in watch.seen]
    assert frozen == [True] * 5 + [False] * 3
    other, _ = fit(make_trainer, regime=False)
    assert "backbone.model.0.weight" in changed(plain.state_dict(), other.state_dict())


class Alone(nn.Sequential):
    """Three blocks that treat each sample by itself, so that it does not matter how a batch is spread."""

    def __init__(self):
        def block():
            return BasicBlock(16, 16, norm_layer=lambda channels: nn.GroupNorm(2, channels))

        super().__init__(nn.Conv2d(3, 16, 3), block(), block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def fit_on(ranks):
    """Fits on as many processes, from the same weights, with a network that is built only when the data are known."""
    module = DIETModule(Alone(), lr=1e-2)
    seed_everything(5, verbose=False)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_notebook" if ranks > 1 else "auto",
        max_epochs=4,
        logger=False,
        callbacks=[LastBlocks(2, 0.5), Keep()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    trainer.fit(module, image_data(32, batch_size=16 // ranks, seed=2))


class Keep(Callback):
    """Leaves the weights of every rank in a file: of rank 1 of 2 in ``2.1.pt``."""

    def on_fit_start(self, trainer, pl_module):
        self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        torch.manual_seed(0)
        nn.init.normal_(pl_module.head.weight, std=0.3)

    def on_fit_end(self, trainer, pl_module):
        moved = changed(self.before, pl_module.state_dict())
        torch.save((pl_module.state_dict(), moved), f"{trainer.world_size}.{trainer.global_rank}.pt")


@pytest.mark.slow
def test_ranks_stay_equal_and_train_as_one_process(tmp_path):
    tests = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {tests!r}); from callbacks.test_last_blocks import fit_on; fit_on(2)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    fit_on(1)
    (one, moved), *two = (torch.load(f"{name}.pt", weights_only=True) for name in ("1.0", "2.0", "2.1"))
    assert {name.split(".")[2] for name in moved if name.startswith("backbone")} == {"2", "3"}
    for name, value in one.items():
        assert torch.equal(two[0][0][name], two[1][0][name]), name
        torch.testing.assert_close(two[0][0][name], value, rtol=1e-5, atol=1e-6)


# -- what a block is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "expected"),  # the parts with weights, read off the libraries' definitions
    [
        ("resnet8", 8, ["4", "5"]),
        ("resnet18", 32, ["layer4.0", "layer4.1"]),
        ("vit_b_16", 32, ["encoder.layers.encoder_layer_10", "encoder.layers.encoder_layer_11", "encoder.ln"]),
        ("convnext_tiny", 32, ["features.7.1", "features.7.2", "classifier"]),
        ("timm/test_vit", 32, ["blocks.4", "blocks.5", "norm"]),
        ("timm/test_convnext", 32, ["stages.3.blocks.0", "stages.3.blocks.1", "head"]),
        ("timm/resnet10t", 32, ["layer3.0", "layer4"]),
    ],
)
def test_blocks_are_those_of_the_architecture(name, side, expected):
    model = create_backbone(name, (3, side, side)).model
    found = last_blocks(model, 2)
    assert [part for part in found if list(model.get_submodule(part).parameters())] == expected


def test_named_parts_train_in_place_of_blocks(make_trainer):
    watch = Watch()
    make_trainer(callbacks=[LastBlocks(modules=["0", "3.0.conv1"], head_only=0.0), watch]).fit(
        module := DIETModule(Net()), image_data(24)
    )
    moved = changed(watch.seen[0][1], module.state_dict())
    assert moved == {
        "backbone.model.0.weight",
        "backbone.model.0.bias",
        "backbone.model.3.0.conv1.weight",
        "head.weight",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 0}, "`blocks` to be at least 1, but got 0"),
        ({"head_only": 1.0}, r"`head_only` to be in \[0, 1\), but got 1.0"),
        ({"modules": []}, r"`modules` to be names of parts or None, but got \[\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        LastBlocks(**arguments)


def test_networks_without_such_blocks_are_refused_in_a_sentence(make_trainer):
    def start(callback, backbone):
        make_trainer(callbacks=[callback]).fit(DIETModule(backbone), image_data(24))

    with pytest.raises(ConfigurationError, match=r"at least 4 residual .* Net has 3 that .* such as \['7'\]"):
        start(LastBlocks(4), Net())
    with pytest.raises(ConfigurationError, match=r"names 'blocks\.9', which Net does not have"):
        start(LastBlocks(modules=["blocks.9"]), Net())
