"""Two processes over gloo against one process with twice the batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = """
import sys, warnings
import torch
sys.path.insert(0, {tests!r})
from conftest import TinyNet, image_data
from lightning.pytorch import Callback, Trainer, seed_everything
from diet_lightning import DIETModule, EmbeddingWriter, OnlineLinearProbe
from diet_lightning.data.module import DIETDataModule

class Keep(Callback):
    def on_fit_end(self, trainer, pl_module):  # in the rank's own process
        metrics = {{k: float(v) for k, v in trainer.callback_metrics.items() if k != "train/loss_step"}}
        torch.save({{"module": pl_module.state_dict(), "probe": probe.classifier.state_dict(), "metrics": metrics}},
            f"{{out}}.{{trainer.global_rank}}.pt")

ranks, out = int(sys.argv[1]), sys.argv[2]
seed_everything(5)
# built here, before Lightning reseeds the processes of a distributed run
module, probe = DIETModule(TinyNet(dropout=0.0), num_samples=46, input_shape=[3, 8, 8]), OnlineLinearProbe()
data = image_data(46, batch_size=16 // ranks, seed=2)  # 46 = 2 · 16 + 14: a partial last batch on both
trainer = Trainer(
    accelerator="cpu", devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", max_epochs=3, logger=False,
    callbacks=[probe, Keep(), EmbeddingWriter(f"{{out}}.npz")], enable_progress_bar=False,
    enable_model_summary=False, enable_checkpointing=False)
trainer.fit(module, data)
trainer.predict(module, data, return_predictions=False)
"""


def run(folder: Path, ranks: int, name: str) -> list[dict]:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script), str(ranks), str(folder / name)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in range(ranks)]


def test_two_processes_train_the_model_of_one_with_twice_the_batch(tmp_path):
    (one,) = run(tmp_path, 1, "one")
    two = run(tmp_path, 2, "two")
    for name, value in one["module"].items():
        torch.testing.assert_close(two[0]["module"][name], value, rtol=1e-6, atol=1e-6)
        assert torch.equal(two[0]["module"][name], two[1]["module"][name]), name
    for name, value in one["probe"].items():
        torch.testing.assert_close(two[0]["probe"][name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(two[0]["probe"][name], two[1]["probe"][name]), name
    assert two[0]["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
    assert two[0]["metrics"] == two[1]["metrics"]
    ours, theirs = np.load(tmp_path / "two.npz"), np.load(tmp_path / "one.npz")
    np.testing.assert_array_equal(ours["index"], np.arange(46))
    np.testing.assert_array_equal(ours["label"], theirs["label"])
    np.testing.assert_allclose(ours["features"], theirs["features"], atol=1e-5)
