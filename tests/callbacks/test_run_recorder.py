"""What a run records of itself, from the command line, a notebook and several processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import TinyNet, fit_on_two_ranks, image_data, images
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from diet_lightning import DIETDataModule, DIETModule, IndexedDataset, RunRecorder
from diet_lightning.__main__ import main
from diet_lightning.data.adapters import adapt
from diet_lightning.runs.record import RunRecord, current_versions

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def test_diet_fit_records_its_run():
    options = ["--data.subset=150", "--trainer.accumulate_grad_batches=2", "--model.label_smoothing=0.3"]
    assert main(["fit", "--config", "debug", "--run_dir", "run", *options, *QUIET]) == 0
    data = DIETDataModule("digits", subset=150)
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert RunRecord.read("run") == RunRecord(
        num_samples=150,
        fingerprint=saved["DIETDataModule"]["fingerprint"],
        input_shape=[1, 8, 8],
        num_classes=10,
        class_names=None if data.class_names is None else list(data.class_names),
        source="digits",
        backbone="resnet8",
        target="index",
        label_smoothing=0.3,
        batch_size=100,  # two batches of 50
        data=data.summary().as_dict(),
        versions=current_versions(),
    )


def test_notebook_makes_a_run_that_the_commands_read(make_trainer, capsys):
    data = image_data(48, class_names=list("abcd"))
    logger = CSVLogger("run", name="", version="")
    trainer = make_trainer(logger=logger, log_every_n_steps=1, callbacks=[RunRecorder("run")])
    trainer.fit(DIETModule("resnet8"), data)
    trainer.save_checkpoint("run/last.ckpt")
    record = RunRecord.read("run")
    assert (record.num_samples, record.batch_size, record.class_names) == (48, 16, list("abcd"))
    assert (record.source, record.backbone, record.num_classes) == (None, "resnet8", 4)
    counted = record.data["splits"]["train"]
    assert (counted["num_samples"], counted["first_classes"]) == (48, [[name, 12] for name in "abcd"])
    train = TensorDataset(images(48), torch.arange(48) % 4)
    assert record.fingerprint == adapt(train).fingerprint()
    assert main(["export", "run", "--output", "out"]) == 0
    assert "`data sets passed in Python`" in Path("out/README.md").read_text()
    capsys.readouterr()
    assert main(["compare", "run"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ranking"][0]["num_samples"] == 48


def test_plain_loaders_record_what_is_known(make_trainer, tmp_path):
    dataset = IndexedDataset(TensorDataset(torch.rand(40, 3, 8, 8)))
    loader = DataLoader(dataset, batch_size=8, collate_fn=lambda batch: batch)
    module = DIETModule(TinyNet(), num_samples=40, input_shape=[3, 8, 8])
    make_trainer(max_epochs=1, default_root_dir=tmp_path / "run", callbacks=[RunRecorder()]).fit(module, loader, loader)
    record = RunRecord.read("run")
    assert (record.num_samples, record.input_shape, record.batch_size) == (40, [3, 8, 8], 8)
    assert (record.fingerprint, record.source, record.backbone, record.num_classes) == (None, None, None, None)
    assert record.data is None


def test_changed_data_are_refused_before_the_record_is_written_again():
    assert main(["fit", "--config", "debug", "--run_dir", "run", *QUIET]) == 0
    before = Path("run/run.json").read_bytes()
    more = ["--ckpt_path", "run/checkpoints/last.ckpt", "--data.subset", "199", "--trainer.max_epochs=3", *QUIET]
    assert main(["fit", *more]) == 1
    assert Path("run/run.json").read_bytes() == before


@pytest.mark.parametrize("command", ["audit", "export"])
def test_folder_without_a_record_is_told_in_a_sentence(make_trainer, capsys, command):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(DIETModule("resnet8"), image_data())
    trainer.save_checkpoint("run/last.ckpt")
    assert main([command, "run"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "holds no run.json: give the folder of a run of `diet fit`" in said
    assert [path.name for path in Path("run").iterdir()] == ["last.ckpt"]


TOLD = """
from diet_lightning import RunRecorder

class Told(RunRecorder):
    def on_fit_start(self, trainer, pl_module):
        self.dirpath = f"rank{trainer.global_rank}"
        super().on_fit_start(trainer, pl_module)
"""


@pytest.mark.slow
def test_rank_zero_alone_writes_with_the_batch_of_all_ranks(tmp_path):
    fit_on_two_ranks(tmp_path, TOLD, "callbacks=[Told()], accumulate_grad_batches=3,")
    assert RunRecord.read("rank0").batch_size == 8 * 2 * 3
    assert not Path("rank1").exists()
