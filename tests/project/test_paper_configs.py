"""The configurations of the paper's data sets, on small sets that lie on the disk as the real ones do."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from published_sets import (
    TEST,
    TRAIN,
    VAL,
    colour,
    write_aircraft,
    write_cars,
    write_cifar,
    write_class_folders,
    write_cub,
    write_dtd,
    write_flowers,
    write_food,
    write_medmnist,
    write_pets,
    write_tiny_imagenet,
)
from torchvision.datasets import Flowers102

from diet_lightning import DIETModule, HeadConfig
from diet_lightning.__main__ import main
from diet_lightning.backbones.factory import Backbone, create_backbone
from diet_lightning.cli.lightning import DIETCLI, run_lightning

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "examples/paper/configs"
SWEEP = yaml.safe_load((ROOT / "examples/paper/sweep.yaml").read_text())
README = (PAPER / "README.md").read_text()


def folders(name):
    return lambda data, patch: write_class_folders(data / name, train=TRAIN, val=VAL)


def made_by(write, name):
    return lambda data, patch: write(data, patch, name)


# torchvision 0.21 does not name them: then they are those that occur
FLOWERS = 102 if hasattr(Flowers102, "classes") else 3


@dataclass
class Known:
    """What is known of a set, whatever its configuration says.

    Attributes:
        counts: Images of training, of validation and of test in the published set; None where there are no labelled ones.
        classes: Of the published set.
        side: Of the network's images, in pixels.
        backbone: Name, and the dimension of its embeddings.
        write: Lays a small copy out below a folder.
        given_classes: How many classes the opened small copy has.
    """

    counts: tuple[int, int | None, int | None]
    classes: int
    side: int
    write: Callable
    backbone: tuple[str, int] = ("resnet18", 512)
    given_classes: int = 3


KNOWN = {
    "cifar10": Known((50000, None, 10000), 10, 32, made_by(write_cifar, "CIFAR10")),
    "cifar100": Known((50000, None, 10000), 100, 32, made_by(write_cifar, "CIFAR100"), ("resnet101", 2048)),
    "tinyimagenet": Known((100000, 10000, None), 200, 64, write_tiny_imagenet, ("resnext50_32x4d", 2048)),
    "imagenet100": Known((126689, 5000, None), 100, 224, folders("imagenet100")),
    "imagenet1k": Known((1281167, 50000, None), 1000, 224, folders("imagenet")),
    "food101": Known((101 * 750, None, 101 * 250), 101, 224, write_food),
    "aircraft": Known((6667, None, 3333), 100, 224, write_aircraft),
    "cars": Known((8144, None, 8041), 196, 224, write_cars),
    "dtd": Known((47 * 40, 47 * 40, 47 * 40), 47, 224, write_dtd),
    "pets": Known((3680, None, 3669), 37, 224, write_pets),
    "flowers": Known((1020, 1020, 6149), 102, 224, write_flowers, given_classes=FLOWERS),
    "cub200": Known((5994, None, 5794), 200, 224, write_cub),
    "pathmnist": Known((89996, 10004, 7180), 9, 28, made_by(write_medmnist, "pathmnist")),
    "dermamnist": Known((7007, 1003, 2005), 7, 28, made_by(write_medmnist, "dermamnist")),
    "bloodmnist": Known((11959, 1712, 3421), 8, 28, made_by(write_medmnist, "bloodmnist")),
}
NUMBERS = {"cifar100": "71.4 %", "tinyimagenet": "52.5 %"}  # that the paper is known to give
EVERY = pytest.mark.parametrize("name", sorted(KNOWN))


@pytest.fixture(scope="module", autouse=True)
def one_parser():
    """All runs share the command line's parser, which takes longer to build than a step takes."""
    build, kept = DIETCLI.setup_parser, {}

    def setup_parser(cli, *args):
        if not kept:
            build(cli, *args)
            names = ("parser", "command_parser", "_subcommand_parsers", "_subcommand_method_arguments")
            kept.update({name: getattr(cli, name) for name in names})
        vars(cli).update(kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DIETCLI, "setup_parser", setup_parser)
        yield


# -- the configurations ------------------------------------------------------------------------------------------------


def test_every_set_has_a_configuration_and_the_other_way_round():
    assert {path.stem for path in PAPER.glob("*.yaml")} == set(KNOWN)


@EVERY
def test_configuration_trains_a_step_on_its_set_as_it_is_unpacked(name, tmp_path, monkeypatch):
    known = KNOWN[name]
    known.write(tmp_path / "data", monkeypatch)
    small = ["--model.backbone=resnet8_w8", "--data.batch_size=2", "--data.num_workers=0", "--trainer.accelerator=cpu"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    cli = run_lightning(["fit", f"--config={PAPER}/{name}.yaml", "--trainer.fast_dev_run=1", *small, *quiet])
    data, module = cli.datamodule, cli.model
    assert cli.trainer.global_step == 1
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert {"val/probe_top1", SWEEP["metric"]["name"]} <= set(cli.trainer.callback_metrics)
    assert (data.num_samples, module.num_samples, tuple(module.head.weight.shape)) == (6, 6, (6, 32))
    assert data.input_shape == (3, known.side, known.side)
    assert data.num_classes == known.given_classes
    val, test = (VAL if known.counts[1] else None), (TEST if known.counts[2] else None)
    for split, labels in {"train": TRAIN, "val": val or test, "test": test or val}.items():
        batch = data.raw_samples(split, range(data.identity(split)["num_samples"]))
        assert sorted(batch.label.tolist()) == sorted(labels)
        seen = torch.stack([image[:, image.shape[1] // 2, image.shape[2] // 2] for image in batch.input]).float()
        torch.testing.assert_close(seen, colour(batch.label).float()[:, None].expand_as(seen), atol=2, rtol=0)


@functools.cache
def network(name: str, side: int) -> Backbone:
    with torch.device("meta"):
        return create_backbone(name, (3, side, side))


@EVERY
def test_named_network_and_head_build_at_full_size(name):
    known, config = KNOWN[name], yaml.safe_load((PAPER / f"{name}.yaml").read_text())
    backbone, embed_dim = known.backbone
    assert config["model"].pop("backbone") == backbone
    side, size = config["data"]["image_size"], known.counts[0]
    config["model"]["head"] = HeadConfig(**config["model"].get("head", {}))
    with torch.device("meta"):
        module = DIETModule(network(backbone, side), num_samples=size, input_shape=[3, side, side], **config["model"])
    assert module.head.weight.shape == (size, embed_dim)
    assert module.backbone.stem == ("small" if known.side <= 64 else "standard")


@EVERY
def test_comment_states_the_size_of_the_set_and_the_papers_number(name):
    text, known = (PAPER / f"{name}.yaml").read_text(), KNOWN[name]
    found = re.match(r"# .*: N = ([\d,]+) training images, ([\d,]+) classes; probes on the ", text)
    assert [int(number.replace(",", "")) for number in found.groups()] == [known.counts[0], known.classes]
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    for count in known.counts:
        assert count is None or f"{count:,}" in comment or "as many" in comment
    assert re.findall(r"[\d.]+ %", text) == ([NUMBERS[name]] if name in NUMBERS else [])
    for part in ("# Data: ", "# Layout: data/", "# Paper: "):
        assert part in text


# -- what the README says ----------------------------------------------------------------------------------------------


def test_table_agrees_with_the_configurations():
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in README.splitlines() if row.startswith("| ")][1:]
    assert sorted(row[0] for row in rows) == sorted(KNOWN)
    for name, size, classes, pixels, backbone, source, held_out, paper in rows:
        known, config = KNOWN[name], yaml.safe_load((PAPER / f"{name}.yaml").read_text())
        splits = [part for part, count in zip(("val", "test"), known.counts[1:], strict=True) if count]
        assert (size, classes) == (f"{known.counts[0]:,}", f"{known.classes:,}")
        assert (int(pixels), source) == (config["data"]["image_size"], config["data"]["source"])
        assert (backbone, held_out, paper) == (known.backbone[0], ", ".join(splits), NUMBERS.get(name, ""))


def printed_config(args, capsys):
    """The configuration that the command line reads, without running it."""
    with pytest.raises(SystemExit) as stop:
        main([*args, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_commands_of_the_readme_parse(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [shlex.split(line)[1:] for line in README.splitlines() if line.strip().startswith("diet fit ")]
    assert len(lines) == 6
    settings = [printed_config(args, capsys) for args in lines]
    assert (settings[1]["trainer"]["max_epochs"], settings[1]["data"]["subset"]) == (1, 1000)
    assert (settings[-1]["model"]["head"]["kind"], settings[-1]["trainer"]["devices"]) == ("sharded", "8")


def test_architectures_of_the_readme_build():
    (names,) = re.findall(r"for backbone in (.*); do", README)
    for name in names.split():
        assert network(name, 32).embed_dim >= 512


# -- the sweep ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choose", [min, max])
def test_sweep_gives_command_lines_that_parse(choose, capsys):
    chosen = {name: choose(options["values"]) for name, options in SWEEP["parameters"].items()}
    flags = [f"--{name}={value}" for name, value in chosen.items()]  # as W&B's agent puts them in the place of ${args}
    command = [part for word in SWEEP["command"] for part in (flags if word == "${args}" else [word])]
    assert command[0] == SWEEP["program"] == "diet"
    config = printed_config(command[1:], capsys)
    for name, value in chosen.items():
        group, option = name.split(".")
        assert config[group][option] == value
    assert config["seed_everything"] == 0
    assert config["data"]["source"] == "digits"
    assert config["trainer"]["logger"]["class_path"].endswith("WandbLogger")


def test_sweep_covers_the_papers_ablations():
    assert set(SWEEP["parameters"]) == {
        "model.label_smoothing",
        "data.batch_size",
        "data.strength",
        "trainer.max_epochs",
    }
    assert SWEEP["metric"] == {"name": "train/loss_gap", "goal": "minimize"}
