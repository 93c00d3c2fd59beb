"""Weights to start from, against the libraries that wrote them; what does not fit is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import yaml
from helpers import TinyNet
from torchvision import models

from diet_lightning import DIETDataModule, DIETModule, create_backbone
from diet_lightning.__main__ import main
from diet_lightning.backbones.initial_weights import load_initial_weights
from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.export.folder import export_backbone

pytestmark = pytest.mark.slow

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def outputs(network, shape, seed=0):
    with torch.no_grad():
        return network.eval()(torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Where torchvision keeps what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def huggingface(tmp_path, monkeypatch):
    """Where timm's weights are kept, without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hf"


# -- the library's own -------------------------------------------------------------------------------------------------


def test_pretrained_is_torchvisions_file(hub):
    torch.manual_seed(0)
    theirs = models.densenet121().train()
    theirs(torch.randn(2, 3, 64, 64))  # so that the batch norms' statistics count
    names = {key: re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key) for key in theirs.state_dict()}
    assert names["features.denseblock1.denselayer1.norm1.weight"] == "features.denseblock1.denselayer1.norm.1.weight"
    # as the file from 2017 has them
    state = {names[key]: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, hub / Path(models.DenseNet121_Weights.DEFAULT.url).name)
    module = DIETModule("densenet121", num_samples=4, input_shape=[3, 64, 64], weights="pretrained")
    theirs.classifier = torch.nn.Identity()
    torch.testing.assert_close(outputs(module, (3, 64, 64)), outputs(theirs, (3, 64, 64)), rtol=1e-4, atol=1e-4)


def test_pretrained_pickle_that_would_run_code_is_refused(hub, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv1.weight": Evil()}, hub / Path(models.ResNet18_Weights.DEFAULT.url).name)
    with pytest.raises(CheckpointError, match="pretrained weights of backbone 'resnet18' cannot be read"):
        DIETModule("resnet18", num_samples=4, input_shape=[3, 96, 96], weights="pretrained")
    assert not (tmp_path / "ran").exists()


def test_pretrained_is_timms_file_fitted_to_channels(huggingface):
    name, (channels, side) = "test_vit", (1, 160)
    torch.manual_seed(0)
    theirs = timm.create_model(name)  # with its classifier, for 3 channels
    snapshot = huggingface / "models--timm--test_vit.r160_in1k"
    (snapshot / "snapshots/abc").mkdir(parents=True)
    (snapshot / "refs").mkdir()
    (snapshot / "refs/main").write_text("abc")
    safetensors.torch.save_file(theirs.state_dict(), snapshot / "snapshots/abc/model.safetensors")
    module = DIETModule(f"timm/{name}", num_samples=4, input_shape=[channels, side, side], weights="pretrained")
    expected = timm.create_model(name, pretrained=True, num_classes=0, in_chans=channels)
    ours = outputs(module, (channels, side, side))
    torch.testing.assert_close(ours, outputs(expected, (channels, side, side)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.backbone.model.blocks[3].attn.qkv.weight, theirs.blocks[3].attn.qkv.weight)


@pytest.mark.parametrize("source", ["pretrained", "file", "exported"])
def test_weights_for_rgb_images_give_gray_ones_what_three_equal_channels_have(hub, tmp_path, source):
    torch.manual_seed(0)
    theirs = models.resnet18()
    if source == "pretrained":
        torch.save(theirs.state_dict(), hub / Path(models.ResNet18_Weights.DEFAULT.url).name)
    elif source == "file":
        safetensors.torch.save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    theirs.fc = torch.nn.Identity()
    if source == "exported":
        rgb = create_backbone("resnet18", (3, 96, 96))
        rgb.model.load_state_dict(theirs.state_dict())
        export_backbone(rgb, tmp_path / "folder")
        module = DIETModule(str(tmp_path / "folder"), num_samples=4, input_shape=[1, 96, 96])
    else:
        weights = source if source == "pretrained" else str(tmp_path / "a.safetensors")
        module = DIETModule("resnet18", num_samples=4, input_shape=[1, 96, 96], weights=weights)
    gray = torch.rand(2, 1, 96, 96)
    with torch.no_grad():
        expected, found = theirs.eval()(gray.expand(-1, 3, -1, -1)), module.eval().backbone(gray)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_a_network_the_library_is_quoted_in_a_sentence(huggingface):
    with pytest.raises(
        CheckpointError, match=r"weights of backbone 'timm/test_vit' cannot be read \(.*\): they are fetched"
    ):
        DIETModule("timm/test_vit", num_samples=4, input_shape=[3, 32, 32], weights="pretrained")


def test_networks_without_pretrained_weights_say_so():
    for backbone, named in (("resnet8", "'resnet8'"), (TinyNet(), "'custom'")):
        with pytest.raises(ConfigurationError, match=f"Backbone {named} has no pretrained weights"):
            DIETModule(backbone, num_samples=4, input_shape=[3, 8, 8], weights="pretrained")


# -- files, folders and runs -------------------------------------------------------------------------------------------


def test_safetensors_of_a_whole_classifier_starts_the_backbone(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit").half()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    module = DIETModule("timm/test_vit", num_samples=4, input_shape=[3, 160, 160], weights="model.safetensors")
    theirs.reset_classifier(0)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    torch.testing.assert_close(
        outputs(module, (3, 160, 160)), outputs(theirs.float(), (3, 160, 160)), rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "run"
    assert main(["fit", "--config", "debug", "--run_dir", str(folder), *QUIET]) == 0
    return folder


@pytest.mark.parametrize("form", ["run", "checkpoint", "export"])
def test_a_run_is_continued_and_its_checkpoint_stands_alone(form, run, tmp_path, make_trainer):
    checkpoint = run / "checkpoints/last.ckpt"
    first = DIETModule.load_from_checkpoint(checkpoint)
    export_backbone(first.backbone, "exported")
    weights = {"run": run, "checkpoint": checkpoint, "export": "exported"}[form]
    module = DIETModule("resnet8", weights=str(weights), lr=0.0)
    trainer = make_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, enable_checkpointing=True)
    trainer.fit(module, DIETDataModule("digits", subset=32, batch_size=16))
    for name, value in first.backbone.named_parameters():
        assert torch.equal(value, module.backbone.get_parameter(name)), name
    saved = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert saved["hyper_parameters"]["weights"] is None
    again = DIETModule.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert torch.equal(outputs(again, (1, 8, 8)), outputs(module, (1, 8, 8)))


def test_head_is_drawn_as_without_them(run):
    heads = []
    for weights in (None, str(run)):
        torch.manual_seed(0)
        heads.append(DIETModule("resnet8", num_samples=4, input_shape=[1, 8, 8], weights=weights).head.weight)
    assert torch.equal(*heads)


def refused(message, weights, backbone="resnet8", shape=(1, 8, 8)):
    with pytest.raises(CheckpointError, match=message):
        load_initial_weights(create_backbone(backbone, shape), str(weights))


def test_weights_that_do_not_fit_are_refused_by_the_first_that_differs(run, tmp_path):
    refused(
        r"do not fit the network: '0.weight' has shape \(32, 1, 3, 3\) there and \(32, 3, 3, 3\) in",
        run,
        shape=(3, 8, 8),
    )
    state = create_backbone("resnet8", (1, 8, 8)).model.state_dict()
    safetensors.torch.save_file({**state, "extra.weight": torch.zeros(1)}, "more.safetensors")
    refused(r"'extra.weight' has shape \(1,\) there and None in the network", "more.safetensors")
    del state["4.conv1.weight"]
    safetensors.torch.save_file(state, "fewer.safetensors")
    refused(r"'4.conv1.weight' has shape None there and \(64, 32, 3, 3\) in", "fewer.safetensors")


def test_what_holds_no_weights_is_refused_in_a_sentence(tmp_path):
    torch.save({"0.weight": torch.zeros(1)}, "weights.pth")
    refused(r"'weights.pth' is a pickle, which could run code when loaded: it is refused", "weights.pth")
    Path("broken.safetensors").write_bytes(b"\xff" * 20)
    refused(r"'broken.safetensors' cannot be read", "broken.safetensors")
    refused("'nothing' does not exist; give 'pretrained', a .safetensors file", "nothing")
    Path("empty").mkdir()
    refused("Run folder 'empty' holds no checkpoint", "empty")
    torch.save({"state_dict": {"head.weight": torch.zeros(1)}}, "other.ckpt")
    refused("Checkpoint 'other.ckpt' holds no backbone", "other.ckpt")
    export_backbone(create_backbone("resnet8", (1, 8, 8)), "exported")
    with pytest.raises(
        ConfigurationError, match=r"`weights` to be None with backbone='exported'.* name the architecture, 'resnet8'"
    ):
        DIETModule("exported", num_samples=4, input_shape=[1, 8, 8], weights="exported")


# -- the command line --------------------------------------------------------------------------------------------------


def test_shipped_recipe_continues_a_run_and_resumes_without_it(run, tmp_path):
    source = run.rename(tmp_path / "source")
    changes = ["--model.backbone=resnet8", "--data.source=digits", "--data.subset=64", "--data.image_size=null"]
    changes += ["--data.mean=null", "--data.std=null"]
    changes += ["--trainer.max_epochs=20", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0", *QUIET]
    assert main(["fit", "--config", "diet_cp", "--run_dir", "run", f"--model.weights={source}", *changes]) == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["weights"] == str(source)
    start, end = (torch.load(each / "checkpoints/last.ckpt", weights_only=True) for each in (source, Path("run")))
    moved = {
        name.removeprefix("backbone.model.").partition(".")[0]
        for name, value in start["state_dict"].items()
        if name.startswith("backbone") and not torch.equal(value, end["state_dict"][name])
    }
    assert moved == {"4", "5"}  # the last two of three blocks
    assert end["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-5)
    source.rename(run)  # no longer where it was
    assert main(["fit", "--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.max_epochs=21"]) == 0
