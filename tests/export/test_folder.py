"""Exported folders against the libraries that read them, and against the networks that they were made of."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
import yaml
from helpers import TinyNet, image_data
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from diet_lightning import DIETDataModule, DIETModule, ReadConfig, create_backbone
from diet_lightning.__main__ import main
from diet_lightning.errors import CheckpointError, ConfigurationError, DataError
from diet_lightning.export.folder import export_backbone, load_backbone, load_preprocessing
from diet_lightning.training.trained_run import open_run
from diet_lightning.transforms.preprocessing import Preprocessing

pytestmark = pytest.mark.slow

try:
    import onnx
    import onnxruntime
except ImportError:  # the lowest versions of torch have none that fits
    onnx = None

needs_onnx = pytest.mark.skipif(onnx is None, reason="needs the extra 'onnx'")
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    assert main(["fit", "--config", "debug", "--run_dir", str(folder), *QUIET]) == 0
    return folder


def network(name="resnet8", shape=(3, 8, 8), stem="auto"):
    """A backbone whose weights and batch-norm statistics are not those it starts from."""
    torch.manual_seed(1)
    backbone = create_backbone(name, shape, stem)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 0.005 * torch.randn_like(parameter)
        backbone(torch.randn(4, *shape))
    return backbone.eval()


def computed(backbone, shape, count=3):
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return inputs, backbone(inputs)


def exec_snippet(folder, monkeypatch, **names):
    """Runs the code of a model card in its folder, and returns what it has computed."""
    monkeypatch.chdir(folder)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    exec(code, names)
    return names["features"]


# -- safetensors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "stem", "channels_last"),
    [
        ("resnet8", (1, 8, 8), "auto", True),
        ("resnet18", (3, 32, 32), "auto", True),
        ("resnet18", (3, 32, 32), "standard", False),
        ("timm/test_vit", (4, 32, 48), "auto", False),
    ],
)
def test_weights_and_outputs_come_back_bitwise(name, shape, stem, channels_last, tmp_path):
    backbone = network(name, shape, stem)
    backbone.lay_out(channels_last)
    inputs, expected = computed(backbone, shape)
    before = {key: (value.clone(), value.stride()) for key, value in backbone.state_dict().items()}
    backbone.train()
    state = torch.get_rng_state()
    export_backbone(backbone, "out")
    assert torch.equal(state, torch.get_rng_state())
    assert backbone.training
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key][0]), key
        assert value.stride() == before[key][1], key
    read = safetensors.numpy.load_file("out/model.safetensors")
    assert set(read) == set(backbone.model.state_dict())
    for loaded in (load_backbone("out"), create_backbone("out").eval(), create_backbone(str(tmp_path / "out")).eval()):
        assert (loaded.name, loaded.stem, loaded.input_shape) == (name, backbone.stem, shape)
        assert torch.equal(loaded(inputs), expected)
        for key, value in loaded.model.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), read[key])
    assert not load_backbone("out").training


def test_torchvision_reads_the_weights_itself():
    backbone = network("resnet18", (3, 64, 64), "standard")
    inputs, expected = computed(backbone, (3, 64, 64))
    export_backbone(backbone, "out")
    model = resnet18()
    found = model.load_state_dict(safetensors.torch.load_file("out/model.safetensors"), strict=False)
    assert (sorted(found.missing_keys), found.unexpected_keys) == (["fc.bias", "fc.weight"], [])
    model.fc = nn.Identity()
    assert torch.equal(model.eval()(inputs), expected)


def test_module_of_ones_own_asks_for_the_module():
    own = TinyNet()
    inputs, expected = computed(own.eval(), (3, 8, 8))
    with pytest.raises(ConfigurationError, match=r"`input_shape` for backbone TinyNet, such as .* but got None"):
        export_backbone(own, "out")
    export_backbone(own, "out", input_shape=(3, 8, 8))
    assert json.loads(Path("out/config.json").read_text())["backbone"] is None
    with pytest.raises(
        CheckpointError, match=r"a custom module: pass the untrained module as load_backbone\(folder, back"
    ):
        load_backbone("out")
    with pytest.raises(CheckpointError, match="weights of a custom module"):
        create_backbone("out")
    assert torch.equal(load_backbone("out", TinyNet())(inputs), expected)
    with pytest.raises(
        CheckpointError, match=r"'convolution.weight' has shape \(12, 3, 3, 3\) there and \(12, 4, 3, 3\)"
    ):
        load_backbone("out", TinyNet(channels=4))


def test_weights_of_other_dtypes_and_tied_weights_come_back():
    double = network().double()
    export_backbone(double, "double")
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(load_backbone("double")(inputs), double(inputs))
    tied = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    tied[1].weight = tied[0].weight
    export_backbone(tied, "tied", input_shape=(5,))
    x = torch.randn(2, 5)
    assert torch.equal(load_backbone("tied", nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)))(x), tied(x))


def test_changed_network_is_not_said_to_be_the_named_one():
    backbone = network()
    backbone.model.append(nn.Linear(128, 5))
    export_backbone(backbone, "out")
    assert json.loads(Path("out/config.json").read_text())["backbone"] is None
    cut = create_backbone("resnet18", (3, 32, 32), classifier="fc")
    assert cut.name is None


def test_exported_weights_start_another_run_which_then_stands_alone(run, make_trainer, tmp_path):
    assert main(["export", str(run), "--output", "pretrained"]) == 0
    started = DIETModule("pretrained", num_samples=5, input_shape=[1, 12, 12])
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, value in started.backbone.state_dict().items():
        assert torch.equal(value, saved[f"backbone.{name}"]), name
    with pytest.raises(ConfigurationError, match="'pretrained' cannot read inputs of shape"):
        create_backbone("pretrained", (3, 8, 8))
    with pytest.raises(
        ConfigurationError, match=r"`stem` to be 'auto' or 'standard', with which 'pretrained' was trained"
    ):
        create_backbone("pretrained", stem="small")
    more = ["--config", "debug", "--model.backbone", "pretrained", "--run_dir", "second", "--trainer.max_epochs", "1"]
    assert main(["fit", *more, *QUIET]) == 0
    shutil.rmtree("pretrained")
    assert open_run("second").module.hparams["backbone"] == "resnet8"


def test_name_of_a_network_is_no_folder(tmp_path):
    export_backbone(network("resnet8", (1, 8, 8)), "resnet8")
    assert create_backbone("resnet8", (3, 8, 8)).input_shape == (3, 8, 8)
    assert create_backbone("./resnet8").input_shape == (1, 8, 8)


# -- the run's folder --------------------------------------------------------------------------------------------------


def test_command_writes_the_runs_backbone_and_nothing_it_did_not_measure(run, capsys, monkeypatch):
    assert main(["export", str(run)]) == 0
    folder = run / "export/safetensors"
    assert capsys.readouterr().out == f"Exported: {folder.resolve()}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    read = safetensors.torch.load_file(folder / "model.safetensors")
    assert {f"backbone.model.{name}" for name in read} == {name for name in saved if name.startswith("backbone.")}
    assert all(torch.equal(value, saved[f"backbone.model.{name}"]) for name, value in read.items())
    config = json.loads((folder / "config.json").read_text())
    state = open_run(run).data_state
    assert (config["backbone"], config["input_shape"], config["embed_dim"]) == ("resnet8", [1, 8, 8], 128)
    assert (config["preprocessing"]["mean"], config["preprocessing"]["std"]) == (state["mean"], state["std"])
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "diet-lightning"
    assert "license" not in front
    metrics = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    for name in ("train/loss_gap", "val/probe_top1"):
        last = [row[metrics[0].index(name)] for row in metrics[1:] if row[metrics[0].index(name)]][-1]
        assert re.search(rf"\| {name} \([^|]*\) \| {float(last):.4f} \|", card), name
    for fact in (
        "`digits`",
        "`200`",
        state["fingerprint"],
        "label_smoothing: `0.8`",
        "lr: `0.001`",
        "batch_size: `50`",
    ):
        assert fact in card
    assert "optimiser steps taken: `8`" in card
    assert "No evaluation is recorded." in card
    assert "No probe was measured" not in card
    assert exec_snippet(folder, monkeypatch).shape == (2, 128)


def test_card_takes_evaluations_but_no_values_of_after_the_checkpoint(run, tmp_path):
    shutil.copytree(run, "copy")
    lines = (run / "metrics.csv").read_text().splitlines()
    of_epoch = {"step": "8", "epoch": "9"}
    later = [of_epoch.get(name, "0.9876" if "/" in name else "") for name in lines[0].split(",")]
    (tmp_path / "copy/metrics.csv").write_text("\n".join([*lines, ",".join(later)]) + "\n")
    evaluation = {
        "kNN top-1": {"value": 0.912345, "low": 0.9, "high": 0.925},
    }
    (tmp_path / "copy/evaluation.json").write_text(json.dumps(evaluation))
    assert main(["export", "copy", "--output", "out"]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "0.9876" not in card
    assert "| kNN top-1 | 0.9123 | 0.9000 to 0.9250 |" in card
    for damaged in ("{", '{"kNN": {"low": 1}}', '{"kNN": 3}', '{"kNN": {"value": null}}', "[]"):
        (tmp_path / "copy/evaluation.json").write_text(damaged)
        assert main(["export", "copy", "--output", "again"]) == 1, damaged


def test_card_of_a_run_without_labels_or_of_no_run_claims_nothing(make_trainer, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "data").mkdir()
    for n in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * n, np.uint8)).save(tmp_path / f"data/{n}.png")
    fit = ["fit", "--config", "debug", "--data.source", "folder:data", "--data.subset", "6", "--data.batch_size", "3"]
    assert main([*fit, "--trainer.max_epochs", "1", "--run_dir", "flat", *QUIET]) == 0
    assert main(["export", "flat"]) == 0
    card = (tmp_path / "flat/export/safetensors/README.md").read_text()
    assert "No probe was measured while training." in card
    assert "train/loss_gap" in card
    export_backbone(network(), "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "How it was trained is not recorded." in card
    assert "How the inputs were scaled is not recorded." in card
    assert "DIET]" not in card
    with pytest.raises(CheckpointError, match="does not record the preprocessing of the network's inputs"):
        load_preprocessing("out")


# -- preprocessing -----------------------------------------------------------------------------------------------------


def test_stored_bytes_are_prepared_as_in_the_run(run):
    main(["export", str(run), "--output", "out"])
    data = open_run(run).open_data()
    stored = torch.stack([data._splits["test"][n].input for n in range(50)])
    expected = next(iter(data.eval_batches("test"))).input
    prepared = load_preprocessing("out")(stored)
    assert torch.equal(prepared, expected)
    mean, std = (np.float64(open_run(run).data_state[name][0]) for name in ("mean", "std"))
    np.testing.assert_allclose(prepared.numpy(), (stored.numpy() / 255.0 - mean) / std, atol=1e-5)


def test_image_files_are_prepared_as_in_the_run(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for n, (height, width) in enumerate([(40, 30), (16, 50), (33, 33), (8, 12)]):
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"data/{n}.png")
    Image.fromarray(generator.integers(0, 256, (20, 30), np.uint8)).save(tmp_path / "data/4.png")
    data = DIETDataModule("folder:data", image_size=16, batch_size=5, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    expected = next(iter(data.eval_batches("train"))).input
    preprocess = Preprocessing((3, 16, 16), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    files = [Image.open(tmp_path / f"data/{n}.png") for n in range(5)]
    assert torch.equal(preprocess(files), expected)
    assert torch.equal(preprocess(files[1]), expected[1:2])
    arrays = torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8)
    stored = DIETDataModule.from_datasets(
        torch.utils.data.TensorDataset(arrays), image_size=16, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4]
    )
    assert torch.equal(preprocess(arrays), next(iter(stored.eval_batches("train"))).input)


def test_preprocessing_of_gray_and_oblong_images_and_of_signals():
    gray = Preprocessing((1, 4, 4), (), ())
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    np.testing.assert_allclose(gray(Image.fromarray(values))[0, 0].numpy(), values / 255.0, rtol=1e-6)
    oblong = Preprocessing((3, 4, 6), (0.5,) * 3, (0.5,) * 3)
    assert oblong([Image.new("RGB", (6, 4), (255, 0, 0)), Image.new("L", (60, 41))]).shape == (2, 3, 4, 6)
    np.testing.assert_allclose(
        oblong(Image.new("RGB", (9, 9), (255, 0, 0)))[0, :, 0, 0].numpy(), [1, -1, -1], atol=1e-6
    )
    signal = Preprocessing((2, 9), (), ())
    assert torch.equal(signal(torch.ones(3, 2, 9)), torch.ones(3, 2, 9))
    for preprocess, wrong in (
        (gray, torch.zeros(4, 4)),
        (gray, torch.zeros(2, 3, 4, 4)),
        (signal, torch.ones(3, 2, 8)),
    ):
        with pytest.raises(DataError, match=r"Expected a batch of inputs of shape .* but got a tensor of shape"):
            preprocess(wrong)
    with pytest.raises(DataError, match="Expected tensors for a network that reads inputs of shape"):
        signal(Image.new("L", (4, 4)))
    with pytest.raises(DataError, match=r"unknown range; set `read\.value_range`"):
        gray(Image.new("F", (4, 4)))


def test_an_export_scales_and_composites_as_training_did(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    images = [Image.fromarray(rng.integers(0, 4096, (8, 8)).astype(np.uint16)) for _ in range(4)]
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for n, image in enumerate([*images, clear]):
        image.save(tmp_path / "images" / f"{n}.png")
    data = DIETDataModule(f"folder:{tmp_path / 'images'}", image_size=8, holdout=0.0, read=ReadConfig(background="red"))
    state = data.state_dict()
    preprocess = Preprocessing(
        data.input_shape, state["mean"], state["std"], state["background"], tuple(state["value_range"])
    )
    backbone = create_backbone("resnet8", data.input_shape)
    export_backbone(backbone, tmp_path / "export", preprocessing=preprocess)
    loaded = load_preprocessing(tmp_path / "export")
    expected = data.network_inputs(data.raw_samples("train", range(5)).input)
    assert torch.equal(loaded([*images, clear]), expected)


# -- timm --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("test_vit", (1, 32, 48)),  # of any size, so that its position embedding keeps timm's own
        ("vit_tiny_patch16_224", (3, 32, 32)),
        ("test_convnext", (4, 64, 64)),
        ("resnet10t", (1, 64, 64)),
    ],
)
def test_timm_builds_its_form_and_computes_the_same_bits(name, shape, monkeypatch, tmp_path):
    backbone = network(f"timm/{name}", shape, "standard")
    inputs, expected = computed(backbone, shape)
    channels = shape[0]
    preprocessing = Preprocessing(shape, (0.3,) * channels, (0.2,) * channels)
    export_backbone(backbone, "out", "timm", preprocessing=preprocessing)
    model = timm.create_model("local-dir:out", pretrained=True).eval()
    assert torch.equal(model(inputs), expected)
    assert model.num_features == backbone.embed_dim
    found = timm.data.resolve_model_data_config(model)
    assert (tuple(found["input_size"]), list(found["mean"]), list(found["std"])) == (
        shape,
        [0.3] * channels,
        [0.2] * channels,
    )
    plain = {"num_classes": 0, "in_chans": channels, **({"img_size": shape[1:]} if name.startswith("vit") else {})}
    other = timm.create_model(name, **plain)
    other.load_state_dict(safetensors.torch.load_file("out/model.safetensors"), strict=True)
    assert torch.equal(other.eval()(inputs), expected)
    assert torch.equal(load_backbone("out")(inputs), expected)
    if channels == 3:
        assert exec_snippet(tmp_path / "out", monkeypatch).shape == (2, backbone.embed_dim)


def test_timm_form_is_for_what_timm_can_build():
    with pytest.raises(ConfigurationError, match="'timm/NAME' for format='timm', but got 'resnet8': use format='safe"):
        export_backbone(network(), "out", "timm")
    with pytest.raises(ConfigurationError, match="but got 'a custom module'"):
        export_backbone(TinyNet(), "out", "timm", input_shape=(3, 8, 8))
    with pytest.raises(ConfigurationError, match="stem for small images, which timm cannot build"):
        export_backbone(network("timm/resnet18", (3, 32, 32)), "out", "timm")
    with pytest.raises(CheckpointError, match=r"holds no config.json"):
        load_backbone("out")  # nothing was left


# -- ONNX --------------------------------------------------------------------------------------------------------------


@needs_onnx
@pytest.mark.parametrize(
    ("name", "shape"), [("resnet8", (1, 8, 8)), ("resnet18", (3, 32, 32)), ("timm/test_vit", (3, 32, 32))]
)
def test_onnx_runtime_computes_the_same(name, shape, capfd, recwarn, monkeypatch, tmp_path):
    backbone = network(name, shape)
    backbone.lay_out(channels_last=True)
    preprocessing = Preprocessing(shape, (0.4,) * shape[0], (0.3,) * shape[0])
    export_backbone(backbone, "out", "onnx", preprocessing=preprocessing)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    model = onnx.load("out/model.onnx")
    onnx.checker.check_model(model)
    assert [each.version for each in model.opset_import if each.domain == ""] == [18]
    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        inputs, expected = computed(backbone, shape, count)
        (found,) = session.run(["features"], {"input": inputs.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=0)
    with pytest.raises(
        CheckpointError, match=r"\['model.onnx'\] are for ONNX's runtimes; export the run with --format saf"
    ):
        load_backbone("out")
    assert load_preprocessing("out") == preprocessing
    features = exec_snippet(tmp_path / "out", monkeypatch)
    black = preprocessing(torch.zeros(2, *shape, dtype=torch.uint8))
    np.testing.assert_allclose(features, backbone(black).detach().numpy(), atol=1e-5)


@needs_onnx
def test_onnx_refuses_what_it_cannot_hold(monkeypatch, capfd):
    class Branching(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(
        ConfigurationError, match=r"Branching cannot be exported to ONNX \(.+\): use format='safetensors'"
    ):
        export_backbone(Branching(), "out", "onnx", input_shape=(5,))
    assert capfd.readouterr() == ("", "")  # the exporter would print its graph
    real = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *args: [real(*args)[0] + 0.01])
    with pytest.raises(ConfigurationError, match=r"ONNX Runtime's embeddings of Linear differ from PyTorch's by 0.01"):
        export_backbone(nn.Linear(5, 4), "out", "onnx", input_shape=(5,))


@needs_onnx
def test_onnx_of_one_batch_size_is_not_handed_out(monkeypatch, tmp_path):
    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *args, dynamic_shapes, **options: real(*args, **options))
    with pytest.raises(
        ConfigurationError, match=r"ONNX Runtime cannot run Linear on a batch of 5 .*: use format='safe"
    ):
        export_backbone(nn.Linear(5, 4), "out", "onnx", input_shape=(5,))
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_unfit_release_of_an_extra_is_told(monkeypatch):
    from torch.onnx._internal.exporter import _compat

    monkeypatch.setitem(sys.modules, _compat.__name__, None)  # which an old onnxscript keeps from being imported
    monkeypatch.delattr(sys.modules[_compat.__package__], "_compat")
    with pytest.raises(
        ConfigurationError, match=r"needs other releases .*: pip install --upgrade 'diet-lightning\[onnx\]'"
    ):
        export_backbone(nn.Linear(5, 4), "out", "onnx", input_shape=(5,))


@needs_onnx
@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_extra_is_told(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigurationError, match=rf"needs the package '{package}': pip install 'diet-lightning\[onnx\]'"
    ):
        export_backbone(network(), "out", "onnx")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_bad_commands_are_told_in_a_sentence(run, tmp_path, capsys):
    for arguments, message in [
        (["nowhere"], "Run 'nowhere' does not exist"),
        ([str(run), "--format", "zip"], "`format` to be one of ['safetensors', 'onnx', 'timm'], but got 'zip'"),
        ([str(run), "--format", "timm"], "'timm/NAME' for format='timm', but got 'resnet8'"),
        ([str(run), "--output", str(run)], "exists and is not empty: move it, or choose another `output`"),
        (
            [str(run), "--output", str(run / "metrics.csv")],
            "exists and is not empty: move it, or choose another `output`",
        ),
        ([str(run), "--output", str(run / "metrics.csv/out")], "cannot be written"),
        ([str(run), "--output", "."], "is the current folder"),
    ]:
        assert main(["export", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("diet: error: ")
        assert message in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    assert main(["export", "empty"]) == 1
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, "foreign.ckpt")
    assert main(["export", "foreign.ckpt"]) == 1
    assert "holds no backbone" in capsys.readouterr().err


def test_checkpoint_is_exported_into_an_empty_folder(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.partial").mkdir()  # an export was killed
    (tmp_path / ".out.partial/rest").touch()
    assert main(["export", str(run / "checkpoints/last.ckpt"), "--output", "out"]) == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "config.json", "model.safetensors", "out"]


def test_interrupted_export_leaves_nothing(monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("diet_lightning.export.folder.model_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_backbone(network(), "out")
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders_are_refused_in_a_sentence(tmp_path):
    export_backbone(network(), "good")
    good = json.loads((tmp_path / "good/config.json").read_text())
    whole = (tmp_path / "good/model.safetensors").read_bytes()

    def refused(message, weights=whole, **changes):
        shutil.rmtree("bad", ignore_errors=True)
        shutil.copytree("good", "bad")
        (tmp_path / "bad/model.safetensors").write_bytes(weights)
        config = {key: value for key, value in {**good, **changes}.items() if value != "absent"}
        (tmp_path / "bad/config.json").write_text(json.dumps(config))
        for load in (load_backbone, create_backbone):
            if load is load_backbone or "says 7" not in message:
                with pytest.raises(CheckpointError, match=message) as caught:
                    load("bad")
                assert "\n" not in str(caught.value)

    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        refused("'bad/model.safetensors' cannot be read .* truncated or damaged", whole[:length])
    refused("cannot be read .* truncated or damaged", b"\xff" * 8 + whole[8:])
    refused("has format version 2 .*reads version 1", format_version=2)
    refused("was not written by diet-lightning", library="transformers")
    refused("is damaged .*'input_shape' is", input_shape=[3, -8, 8])
    refused("is damaged .*no 'stem'", stem="absent")
    refused("is damaged .*'backbone' is 3", backbone=3)
    refused("is damaged .*'std' is", preprocessing={"mean": [0.5] * 3, "std": [0.0] * 3})
    refused("is damaged .*'mean' is", preprocessing={"mean": [0.5], "std": [0.5]})
    refused("names an unknown backbone, 'good'", backbone="good")
    refused("names an unknown backbone, '../x'", backbone="../x")
    refused("do not fit the network: '0.weight' has shape", backbone="resnet8", input_shape=[1, 8, 8])
    refused("do not fit the network", backbone="resnet18", input_shape=[3, 32, 32])
    refused("embeddings of 128 numbers, but its config.json says 7", embed_dim=7)
    (tmp_path / "bad/config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"'bad/config.json' cannot be read"):
        load_backbone("bad")
    (tmp_path / "bad/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"'bad' holds no config.json: give a folder that `diet export` wrote"):
        create_backbone("bad")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt"])
def test_pickles_are_never_opened(name, tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    export_backbone(network(), "out")
    (tmp_path / "out/model.safetensors").unlink()
    torch.save(Code(), tmp_path / "out" / name)
    with pytest.raises(CheckpointError, match=rf"holds no model.safetensors: \['{name}'\] could run code .* refused"):
        load_backbone("out")
    assert not (tmp_path / "ran").exists()


def test_state_that_is_no_tensor_is_refused():
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"anything": 1}

    with pytest.raises(ConfigurationError, match="'_extra_state' is dict: safetensors cannot hold it"):
        export_backbone(Stateful(5, 4), "out", input_shape=(5,))


def test_backbone_trained_in_python_is_exported_without_a_run(make_trainer, monkeypatch, tmp_path):
    module = DIETModule(TinyNet())
    data = image_data()
    make_trainer(max_epochs=1).fit(module, data)
    preprocessing = Preprocessing(data.input_shape, *(tuple(data.state_dict()[name]) for name in ("mean", "std")))
    trained = copy.deepcopy(module.backbone)
    export_backbone(module.backbone, "out", preprocessing=preprocessing)
    features = exec_snippet(tmp_path / "out", monkeypatch, MyNetwork=TinyNet)
    black = preprocessing(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert torch.equal(features, trained.eval()(black))
