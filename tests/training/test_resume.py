"""Nothing is lost: a resumed run is, bit by bit, the run that was never stopped."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import TinyNet, each_device, image_data
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from diet_lightning import DIETModule, InterruptCheckpoint, OnlineLinearProbe, RunFigure
from diet_lightning.errors import CheckpointError

pytestmark = pytest.mark.slow

EPOCHS = 4
STEPS = 4  # per epoch: 52 samples, 3 batches of 16 and one of 4


@pytest.fixture(autouse=True)
def deterministic():
    """Ends what `deterministic=True` of a Trainer sets for the process."""
    yield
    torch.use_deterministic_algorithms(False)


def fit(make_trainer, *callbacks, ckpt_path=None, workers=0, device="cpu", **options):
    """A run with dropout and every augmentation; returns the module and the probe."""
    seed_everything(1, verbose=False)
    module, probe = DIETModule(TinyNet()), OnlineLinearProbe()
    data = image_data(52, num_workers=workers, seed=3)
    if device == "cuda":  # sums of atomic additions would depend on their order
        options["deterministic"] = True
    options = {"max_epochs": EPOCHS, "enable_checkpointing": True, "accelerator": device, **options}
    trainer = make_trainer(callbacks=[probe, *callbacks], **options)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module, probe


def assert_same(left, right):
    for ours, theirs in zip(left, right, strict=True):
        theirs_state = (theirs.state_dict if isinstance(theirs, DIETModule) else theirs.classifier.state_dict)()
        ours_state = (ours.state_dict if isinstance(ours, DIETModule) else ours.classifier.state_dict)()
        for name, value in ours_state.items():
            assert torch.equal(value, theirs_state[name]), name


def every_epoch(folder, **options):
    return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, **options)


@each_device
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{"save_on_train_epoch_end": True}, {}], ids=["epoch end", "Lightning's default"])
def test_resumed_after_an_epoch(make_trainer, tmp_path, options, workers, device):
    run = {"workers": workers, "device": device}
    whole = fit(make_trainer, every_epoch(tmp_path, **options), **run)
    resumed = fit(make_trainer, every_epoch(tmp_path / "b"), ckpt_path=tmp_path / "epoch=1.ckpt", **run)
    assert_same(whole, resumed)
    # neither do the workers matter, nor whether the data are on the device, where they are without workers
    assert_same(whole, fit(make_trainer, every_epoch(tmp_path / "c"), device=device))


@each_device
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_within_an_epoch_from_a_step_checkpoint(make_trainer, tmp_path, workers, device):
    run = {"workers": workers, "device": device}
    steps = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    whole = fit(make_trainer, steps, **run)
    for step in (STEPS + 2, 2 * STEPS):
        again = ModelCheckpoint(tmp_path / str(step), "{step}", save_top_k=-1, every_n_train_steps=1)
        resumed = fit(make_trainer, again, ckpt_path=tmp_path / f"step={step}.ckpt", **run)
        assert_same(whole, resumed)


class Crash(Callback):
    """Fails in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == self.step:
            raise RuntimeError("power failure")


@pytest.mark.parametrize("step", [1, STEPS, STEPS + 3])
def test_resumed_after_a_crash_within_a_step(make_trainer, tmp_path, step):
    whole = fit(make_trainer, every_epoch(tmp_path / "a"))
    with pytest.raises(RuntimeError, match="power failure"):
        fit(make_trainer, Crash(step), InterruptCheckpoint(tmp_path))
    resumed = fit(make_trainer, InterruptCheckpoint(tmp_path), ckpt_path=tmp_path / "interrupted.ckpt")
    assert_same(whole, resumed)
    assert not (tmp_path / "interrupted.ckpt").exists()  # no longer needed


def test_accumulation_resumes_too(make_trainer, tmp_path):
    options = {"accumulate_grad_batches": 2}
    whole = fit(make_trainer, every_epoch(tmp_path, save_on_train_epoch_end=True), **options)
    assert_same(whole, fit(make_trainer, ckpt_path=tmp_path / "epoch=1.ckpt", **options))


@pytest.mark.parametrize("batch_size", [8, 32])
def test_another_batch_size_raises_an_error_that_names_the_right_one(make_trainer, tmp_path, batch_size):
    trainer = make_trainer(max_epochs=1)
    trainer.fit(DIETModule(TinyNet()), image_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(
        CheckpointError, match=f"batches of 16 samples, but batch_size={batch_size} .* Set `batch_size` to 16"
    ):
        make_trainer(max_epochs=2).fit(
            DIETModule(TinyNet()), image_data(batch_size=batch_size), ckpt_path=tmp_path / "a.ckpt", weights_only=True
        )


def test_figure_of_a_resumed_run_shows_all_of_it(make_trainer, tmp_path):
    figures = [RunFigure(str(tmp_path / name)) for name in "ab"]
    fit(make_trainer, figures[0], every_epoch(tmp_path, save_on_train_epoch_end=True))
    fit(make_trainer, figures[1], ckpt_path=tmp_path / "epoch=1.ckpt")
    curves = [figure.state_dict()["curves"] for figure in figures]
    assert curves[0] == curves[1]
    assert set(curves[0]) == {"train/loss_gap", "val/probe_top1", "train/probe_top1"}
    assert all(list(curve) == [1, 2, 3, 4] for curve in curves[0].values())
    assert (tmp_path / "a/figure.png").read_bytes()[:4] == b"\x89PNG"


def run_diet(*args, kill=None, cwd):
    """Runs the command line; with `kill`, sends that signal once some steps of the second epoch are logged."""
    command = [sys.executable, "-m", "diet_lightning", *args]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if kill is not None:
        run_dir = Path(cwd) / args[args.index("--run_dir") + 1]
        deadline = time.monotonic() + 120
        while (
            not (run_dir / "checkpoints/last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(kill)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def step_losses(run):
    with (run / "metrics.csv").open() as file:
        return [row["train/loss_step"] for row in csv.DictReader(file) if row["train/loss_step"]]


FIT = (
    "fit",
    "--config",
    "digits",
    "--trainer.max_epochs=8",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=4",
    "--data.subset=200",
    "--trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    code, output = run_diet(*FIT, "--run_dir", "whole", cwd=folder)
    assert code == 0, output
    return folder / "whole"


@pytest.mark.parametrize(("kill", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 143)], ids=["SIGTERM", "Ctrl-C"])
def test_signal_in_mid_epoch_leaves_a_checkpoint_that_resumes_exactly(whole_run, tmp_path, kill, status):
    code, output = run_diet(*FIT, "--run_dir", "stopped", kill=kill, cwd=tmp_path)
    assert code == status, output
    saved = torch.load(tmp_path / "stopped/checkpoints/interrupted.ckpt", weights_only=True)
    assert 0 < saved["global_step"] < 8 * 50, output
    assert saved["global_step"] % 50, "the signal came at an epoch's end: nothing was tested"
    # the checkpoint alone is enough: the run's own config lies beside it
    code, output = run_diet("fit", "--ckpt_path", "stopped/checkpoints/interrupted.ckpt", cwd=tmp_path)
    assert code == 0, output
    whole, resumed = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole_run, tmp_path / "stopped")
    )
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    assert step_losses(tmp_path / "stopped") == step_losses(whole_run)  # none lost, none twice
