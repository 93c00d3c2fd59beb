"""The command line as a user meets it, through the shipped entry point."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diet_lightning.__main__ import main
from diet_lightning.cli import lightning as cli

pytestmark = pytest.mark.slow

QUICK = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
CONFIGS = sorted(path.stem for path in Path(str(resources.files("diet_lightning"))).glob("configs/*.yaml"))


def diet(*args: str) -> int:
    return main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished debug run."""
    run_dir = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run_dir.parent)
        assert diet("fit", "--config", "debug", "--run_dir", run_dir, *QUICK) == 0
    return run_dir


def test_run_folder_holds_config_metrics_checkpoint_and_figure(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert names == {"config.yaml", "run.json", "metrics.csv", "checkpoints/last.ckpt", "figure.png", ".lock"}
    rows = list(csv.DictReader((finished / "metrics.csv").read_text().splitlines()))
    logged = {name for row in rows for name, value in row.items() if value}
    assert {
        "train/loss",
        "train/loss_gap",
        "train/loss_step",
        "train/probe_top1",
        "val/probe_top1",
        "val/probe_top5",
        "lr/backbone",
    } <= logged
    assert len([row for row in rows if row["train/loss_step"]]) == 8  # 2 epochs of 4 batches, logged at every step
    saved = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["backbone"] == "resnet8"
    assert saved["hyper_parameters"]["num_samples"] == 200


def test_saved_config_runs_again_to_the_same_weights(finished, tmp_path):
    assert diet("fit", "--config", finished / "config.yaml", "--run_dir", tmp_path / "again") == 0
    one, two = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (finished, tmp_path / "again")
    )
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


@pytest.mark.parametrize(
    ("able", "given", "expected"),
    [(True, (), "bf16-mixed"), (False, (), None), (True, ("--trainer.precision=32-true",), "32-true")],
)
def test_a_new_run_computes_in_bf16_where_the_processor_does(
    able, given, expected, tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.setattr(cli, "multiplies_bf16", lambda: able)
    options = ("--config", "debug", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", *QUICK)
    run = tmp_path / "run"
    assert diet("fit", *options, "--run_dir", run, *given) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == expected
    told = "This processor multiplies in bf16" in capsys.readouterr().err + caplog.text
    assert told == (able and not given)
    # the run goes on as it began, also on a processor that differs
    monkeypatch.setattr(cli, "multiplies_bf16", lambda: not able)
    resumed = ("--ckpt_path", run / "checkpoints/last.ckpt", "--trainer.max_epochs=2")
    assert diet("fit", *options[:2], *options[3:], *given, *resumed) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == expected
    assert "This processor multiplies in bf16" not in capsys.readouterr().err


def test_printed_config_runs(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        diet("fit", "--config", "debug", "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["backbone"] == "resnet8"
    (tmp_path / "p.yaml").write_text(printed)
    assert diet("fit", "--config", "p.yaml", "--run_dir", "p", "--trainer.max_epochs", "1", *QUICK) == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_config_parses(name, capsys, tmp_path):
    (tmp_path / name).mkdir()  # data may lie in a folder of its name
    with pytest.raises(SystemExit) as stop:
        diet("fit", "--config", name, "--print_config")
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    shipped = yaml.safe_load((resources.files("diet_lightning") / f"configs/{name}.yaml").read_text())
    for group, values in shipped.items():
        for key, value in values.items():
            if key not in ("logger", "callbacks"):  # classes, whose other arguments are filled in
                found = config[group][key]
                if isinstance(value, dict):  # the head, whose other settings are filled in
                    found = {name: found[name] for name in value}
                assert found == value


def test_all_promised_configs_are_shipped():
    assert CONFIGS == ["cifar10", "cifar100", "debug", "diet_cp", "digits", "folder", "wandb"]


def test_checkpoint_alone_validates_tests_and_predicts(finished, capsys, tmp_path):
    checkpoint = finished / "checkpoints/last.ckpt"
    for command, split in (("validate", "val"), ("test", "test")):
        assert diet(command, checkpoint, *QUICK) == 0
        assert f"{split}/probe_top1" in capsys.readouterr().out
    assert diet("predict", checkpoint, "--run_dir", tmp_path / "out", "--data.predict_split", "test", *QUICK) == 0
    arrays = np.load(tmp_path / "out/embeddings.npz")
    assert arrays["features"].shape == (450, 128)
    np.testing.assert_array_equal(arrays["index"], np.arange(450))
    assert set(arrays["label"].tolist()) == set(range(10))
    assert diet("predict", checkpoint, "--run_dir", tmp_path / "out", *QUICK) == 1
    assert "embeddings.npz' exists: move it" in capsys.readouterr().err


def test_model_of_a_checkpoint_is_found_without_its_config(finished, tmp_path, capsys):
    checkpoint = tmp_path / "elsewhere.ckpt"
    checkpoint.write_bytes((finished / "checkpoints/last.ckpt").read_bytes())
    with pytest.warns(UserWarning, match="are not those of the checkpoint"):  # which was trained on 200 of them
        assert diet("test", checkpoint, *QUICK) == 0  # resnet8, not the default resnet18
    assert "test/probe_top1" in capsys.readouterr().out


def test_existing_run_folder_is_left_alone(finished, capsys):
    def state():  # filelock's releases differ in whether locking touches the empty file
        return {
            path: path.read_bytes() if path.name == ".lock" else path.stat().st_mtime_ns for path in finished.rglob("*")
        }

    before = state()
    assert diet("fit", "--config", "debug", "--run_dir", finished) == 1
    assert "exists and is not empty: choose another `run_dir`" in capsys.readouterr().err
    assert before == state()


def test_fit_alone_is_the_embedded_demo(monkeypatch):

    seen = []
    monkeypatch.setattr(cli, "DIETCLI", lambda args, held: seen.append(args))
    cli.run_lightning(["fit"])
    assert seen[0][0] == "fit"
    assert seen[0][1].endswith("configs/digits.yaml")


def test_a_default_folder_says_when_and_what():
    assert diet("fit", "--config", "debug", "--trainer.max_epochs", "1", *QUICK) == 0
    (run,) = Path("runs").iterdir()
    assert run.name.endswith("-digits-resnet8")


def test_fast_dev_run_leaves_nothing(tmp_path):
    assert diet("fit", "--config", "debug", "--trainer.fast_dev_run", "true", *QUICK) == 0
    assert list(tmp_path.iterdir()) == []


def test_demo_ends_with_one_json_line(capsys):
    assert diet("demo", "--epochs", "2", "--run_dir", "demo") == 0
    output = capsys.readouterr().out
    figures = json.loads(output.strip().splitlines()[-1])
    assert {"raw_top1", "untrained_top1", "diet_top1", "raw_5shot", "diet_5shot", "seconds", "run_dir"} <= set(figures)
    assert figures["run_dir"] == "demo"
    assert figures["raw_top1"] > 0.93
    assert figures["raw_5shot"] < figures["raw_top1"]
    assert all(name in output for name in ("raw pixels", "untrained backbone", "DIET"))


def test_wandb_gets_scalars_config_and_figure_and_the_folder_loses_nothing():
    command = [
        sys.executable,
        "-m",
        "diet_lightning",
        "fit",
        "--config",
        "debug",
        "--config",
        "wandb",
        "--run_dir",
        "w",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)  # W&B writes its last on leaving
    assert done.returncode == 0, done.stderr
    files = [path.relative_to("w").as_posix() for path in Path("w").rglob("*") if path.is_file()]
    assert {"config.yaml", "metrics.csv", "figure.png", "checkpoints/last.ckpt"} <= set(files)
    assert any("media/images/figure" in name for name in files)
    (record,) = Path("w/wandb").glob("offline-run-*/*.wandb")
    content = record.read_bytes()
    for key in (b"train/loss_gap", b"val/probe_top1", b"label_smoothing", b"resnet8"):
        assert key in content, key


def test_wandb_and_timm_are_imported_only_where_used():
    code = "import sys, diet_lightning.__main__ as m; m.main(['fit', '--config', 'debug', '--trainer.fast_dev_run', 'true']); print([n for n in ('wandb', 'timm', 'datasets') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout + done.stderr
