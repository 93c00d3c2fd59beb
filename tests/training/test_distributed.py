"""Two and three processes over gloo against one process with the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, warnings
import torch
sys.path.insert(0, {tests!r})
from helpers import TinyNet, image_data
from lightning.pytorch import Callback, Trainer, seed_everything
from diet_lightning import DIETModule, EmbeddingWriter, OnlineLinearProbe
from diet_lightning.data.datamodule import DIETDataModule

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
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
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


LAZY = """
import sys
import torch
sys.path.insert(0, {tests!r})
from helpers import TinyNet, image_data
from lightning.pytorch import Trainer
from diet_lightning import DIETModule, HeadConfig

module = DIETModule(TinyNet(), head=HeadConfig(sys.argv[1]))
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_notebook", max_epochs=1, logger=False,
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=True)
trainer.fit(module, image_data(51))
saved = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
for name, value in module.state_dict().items():
    assert torch.equal(value, saved[name]), name
print("same", len(module.head.weight))
"""


@pytest.mark.parametrize("kind", ["dense", "sharded"])
def test_a_notebook_gets_back_what_its_processes_trained(tmp_path, kind):
    script = tmp_path / "script.py"
    script.write_text(LAZY.format(tests=str(Path(__file__).parents[1])))
    command = [sys.executable, str(script), kind]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same 51" in done.stdout


SHARDED = """
import json, os, sys
import torch, torch.distributed as dist
sys.path.insert(0, {tests!r})
from helpers import TinyNet, image_data
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from diet_lightning import DIETModule, HeadConfig

ranks, count, out, ckpt = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] or None

class Keep(Callback):
    def __init__(self):
        self.sent, self.losses = 0, []

    def on_train_start(self, trainer, pl_module):
        if dist.is_initialized():
            for name in ("all_reduce", "all_gather"):
                setattr(dist, name, self.counted(getattr(dist, name)))

    def counted(self, function):
        def call(*args, **options):
            sent = args[-1]  # the message: all_reduce(tensor), all_gather(list, tensor)
            self.sent += sent.numel() * sent.element_size() if isinstance(sent, torch.Tensor) else 0
            return function(*args, **options)
        return call

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean")))

    def on_train_end(self, trainer, pl_module):
        rows = len(pl_module.head.weight)
        logging = trainer.strategy.model._get_ddp_logging_data() if ranks > 1 else {{}}
        found = {{"rows": rows, "sent": self.sent, "losses": self.losses, "reduced": logging.get("total_parameter_size_bytes", 0)}}
        torch.save(found, f"{{out}}.{{trainer.global_rank}}.json")

seed_everything(5)
# built here, before Lightning reseeds the processes of a distributed run
module = DIETModule(TinyNet(dropout=0.0), count, [3, 8, 8], head=HeadConfig("sharded", normalize_rows=True), lr=1e-2)
data = image_data(count, batch_size=12 // ranks, seed=2)
trainer = Trainer(
    accelerator="cpu", devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", max_steps=20, logger=False,
    callbacks=[Keep(), ModelCheckpoint(os.path.dirname(out), os.path.basename(out) + "-{{step}}", every_n_train_steps=10, save_top_k=-1)],
    enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)
trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
torch.save(module.state_dict(), f"{{out}}.fitted")  # in the process that called fit
"""

AGAIN = """
import sys, torch, torch.distributed as dist
from diet_lightning.objective import ShardedHead

def run(rank, world, folder):
    dist.init_process_group("gloo", init_method=f"file://{{folder}}/meet", rank=rank, world_size=world)
    torch.manual_seed(0)
    head = ShardedHead(7, 3)
    optimizer = torch.optim.AdamW(head.parameters())
    torch.manual_seed(0)
    whole = torch.nn.Parameter(torch.empty(7, 3).uniform_(-(3**-0.5), 3**-0.5))
    first, last = head.rows
    assert torch.equal(head.weight, whole[first:last])
    head(torch.randn(2, 3), torch.tensor([0, 6])).backward()
    optimizer.step()
    mine = head.weight.detach().clone()
    head.on_fit_end(optimizer, folder)
    assert rank > 0 or (len(head.weight) == 7 and torch.equal(head.weight[first:last], mine))
    assert rank > 0 or optimizer.state_dict()["state"][0]["exp_avg"].shape == (7, 3)
    head.on_setup()  # for the next fit
    assert torch.equal(head.weight, mine)

if __name__ == "__main__":
    torch.multiprocessing.start_processes(run, (3, sys.argv[1]), nprocs=3, start_method="fork")
"""


def test_rows_are_gathered_and_sharded_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(AGAIN.format())
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    script = folder / "script.py"
    script.write_text(SHARDED.format(tests=str(Path(__file__).parents[1])))

    def fit(ranks, count, name, ckpt=""):
        # 20 steps of 12 samples end before the epoch does, where the ranks' samplers would repeat some
        command = [sys.executable, str(script), str(ranks), str(count), str(folder / name), str(ckpt)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        seen = [torch.load(folder / f"{name}.{rank}.json", weights_only=True) for rank in range(ranks)]
        return torch.load(folder / f"{name}.fitted", weights_only=True), seen

    fit.folder = folder
    return fit


@pytest.mark.parametrize(("ranks", "count"), [(2, 251), (3, 250)])
def test_sharded_rows_train_as_those_of_one_process(sharded, ranks, count):
    one, (alone,) = sharded(1, count, f"one-{ranks}")
    many, seen = sharded(ranks, count, f"many-{ranks}")
    for name, value in one.items():
        torch.testing.assert_close(many[name], value, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(seen[0]["losses"], alone["losses"], rtol=1e-6)
    assert sum(each["rows"] for each in seen) == count
    assert max(each["rows"] for each in seen) - min(each["rows"] for each in seen) == 1
    # what crosses the ranks: DDP's backbone, and a few vectors a sample of the step
    dim = one["head.weight"].shape[1]
    backbone = sum(value.numel() * 4 for name, value in one.items() if name.startswith("backbone"))
    for each in seen:
        assert each["reduced"] == backbone
        assert each["sent"] / 20 < 12 * (2 * dim + 8) * 8 < 4 * dim * count


@pytest.mark.parametrize("ranks", [1, 3])
def test_sharded_on_two_goes_on_with_any_number(sharded, ranks):
    whole, _ = sharded(2, 250, "two")
    checkpoint = sharded.folder / "two-step=10.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    moments = saved["optimizer_states"][0]["state"].values()
    assert saved["state_dict"]["head.weight"].shape == whole["head.weight"].shape
    assert sum(state["exp_avg"].shape == whole["head.weight"].shape for state in moments) == 1
    resumed, _ = sharded(ranks, 250, f"resumed-{ranks}", checkpoint)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-6, atol=1e-6)
