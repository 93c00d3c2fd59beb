"""A finished run, opened again."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from helpers import TinyNet, image_data

from diet_lightning import DIETModule, RunRecorder
from diet_lightning.__main__ import main
from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.training.trained_run import find_checkpoint, open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    assert main(["fit", "--config", "debug", "--run_dir", str(folder), *quiet]) == 0
    return folder


def test_run_comes_back_with_its_network_and_its_very_data(run):
    opened = open_run(run)
    data = opened.open_data()
    assert (data.num_samples, opened.module.num_samples) == (200, 200)
    data.require_same_data(opened.data_state)
    assert not opened.module.training
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in opened.module.state_dict().items())


def test_other_data_are_refused(run):
    opened = open_run(run)
    with pytest.raises(CheckpointError, match="trained on 200 samples, but source 'digits' has 100"):
        opened.open_data(subset=100).require_same_data(opened.data_state)


def test_record_of_another_run_is_refused(run, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(run, mixed)
    record = json.loads((mixed / "run.json").read_text())
    (mixed / "run.json").write_text(json.dumps({**record, "fingerprint": "0" * 32}))
    with pytest.raises(CheckpointError, match=r"run.json of run .* describes other training data than its checkpoint"):
        open_run(mixed)


def test_a_checkpoint_names_its_run(run):
    assert open_run(run / "checkpoints/last.ckpt").folder == run.resolve()
    assert find_checkpoint(run) == run / "checkpoints/last.ckpt"


def test_what_is_no_run_is_told_in_a_sentence(run, tmp_path, make_trainer):
    with pytest.raises(CheckpointError, match=r"Run 'nowhere' does not exist: give the folder"):
        open_run("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no checkpoint: expected checkpoints/last.ckpt"):
        open_run(tmp_path / "empty")
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="holds no backbone"):
        open_run(tmp_path / "foreign.ckpt")
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a.ckpt", "b.ckpt"):
        shutil.copy(run / "checkpoints/last.ckpt", two / name)
    with pytest.raises(
        CheckpointError, match=r"several checkpoints but no last.ckpt: name one of \['a.ckpt', 'b.ckpt'\]"
    ):
        open_run(two)
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    config = yaml.safe_load((changed / "config.yaml").read_text())
    config["data"]["batch_size"] = "many"
    (changed / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigurationError, match=r"data of run .* cannot be opened"):
        open_run(changed).open_data()


def test_run_made_in_python_says_that_its_data_are_there(make_trainer, tmp_path):
    trainer = make_trainer(max_epochs=1, callbacks=[RunRecorder(str(tmp_path))])
    trainer.fit(DIETModule("resnet8"), image_data())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ConfigurationError, match=r"no config.yaml that names its data"):
        open_run(tmp_path / "own.ckpt").open_data()
    own = make_trainer(max_epochs=1)
    own.fit(DIETModule(TinyNet()), image_data())
    own.save_checkpoint(tmp_path / "module.ckpt")
    with pytest.raises(CheckpointError, match="custom backbone"):
        open_run(tmp_path / "module.ckpt")
