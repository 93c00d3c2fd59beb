"""Downloads and decoding: once per node, whatever the number of processes and who asks first."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from diet_lightning import DIETDataModule

TRAIN, TEST = 12, 5
SCRIPT = """
import os, struct, sys, time
from pathlib import Path
import numpy as np
import torch.distributed
import torchvision
sys.path.insert(0, {tests!r})
from helpers import TinyNet
from lightning.pytorch import Trainer
from diet_lightning import DIETDataModule, DIETModule
from diet_lightning.data.images import ImageDataset

def log(what):
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else os.environ.get("LOCAL_RANK", "?")
    with open("log", "a") as file:
        file.write(f"{{what}} {{rank}}\\n")

def download(self):
    if self._check_exists():  # as torchvision's own does
        return
    log("download")
    time.sleep(1)  # both processes are here by now, unless one waits
    raw = Path(self.raw_folder)
    raw.mkdir(parents=True, exist_ok=True)
    for part, count, start in (("train", {train}, 0), ("t10k", {test}, 100)):
        colour = np.arange(start, start + count, dtype=np.uint8)
        pixels = np.broadcast_to(colour[:, None, None], (count, 28, 28))
        (raw / f"{{part}}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{{part}}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + (colour % 10).tobytes())

read = ImageDataset.read
def counted(self, index, *args):
    image, label = read(self, index, *args)
    if name := self.name_of(index):  # of a file; arrays are read for their fingerprint
        log(f"decode {{Path(name).stem}}")
    return image, label

torchvision.datasets.MNIST.download, ImageDataset.read = download, counted
each = [
    DIETDataModule("torchvision:MNIST", root="data", download=True, batch_size=3, strength=0),
    DIETDataModule("folder:images", holdout=0.0, cache="cache", batch_size=3, strength=0),
]
for channels, data in zip((1, 3), each):
    if sys.argv[1] == "num_samples":  # as the command line does, before there is a Trainer
        assert data.num_samples == {train}
    else:
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", max_steps=1, limit_val_batches=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(DIETModule(TinyNet(channels), num_samples={train}, input_shape=[channels, 28, 28]), data)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["fit", "num_samples"])
def test_two_processes_download_and_decode_once(tmp_path, first):
    for n in range(TRAIN):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (28, 28), (n, n, n)).save(tmp_path / "images" / f"{n}.png")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1]), train=TRAIN, test=TEST))
    command = [sys.executable, str(script), first]
    if first == "num_samples":  # both processes begin at once and know nothing of each other
        launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
        command[1:1] = [*launch, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.rsplit(" ", 1) for line in (tmp_path / "log").read_text().splitlines()]
    counts = Counter(what for what, _ in lines)
    assert counts.pop("download") == 1
    # the first image is also read for its shape
    assert counts == {f"decode {n}": 1 if n else 2 for n in range(TRAIN)}
    if first == "fit":
        assert {rank for _, rank in lines} == {"0"}  # in `prepare_data`, by the first process of the node


def test_prepare_data_leaves_no_state(tmp_path):
    data = DIETDataModule("digits")
    before = dict(vars(data))
    data.prepare_data()
    assert vars(data) == before
