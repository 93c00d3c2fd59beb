"""Accuracy over time on CIFAR-10, through `DIETDataModule` and `Trainer`: the online probe and nearest neighbours.

Reads the parquet files of the Hugging Face Hub's `cifar10`, with pyarrow alone: files with ``train`` and ``test`` in their names,
images as encoded bytes, and a column of labels. Two epochs measure the time of one; the run then has as many as fit into
`--seconds`, so that its learning rate comes to its end. Writes a JSON line per epoch to `OUTPUT/cifar.jsonl`, and
`OUTPUT/cifar.png`.

    python benchmarks/cifar.py FOLDER OUTPUT --seconds 220
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from gpu_figures import draw_cifar
from head import hardware
from lightning.pytorch import Callback, Trainer, seed_everything
from PIL import Image
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, DIETModule, FiniteGuard, OnlineKNN, OnlineLinearProbe

FIGURES = 10  # times that the figure is drawn


def read(folder: Path, split: str) -> TensorDataset:
    files = sorted(folder.rglob(f"*{split}*.parquet"))
    if not files:
        raise SystemExit(f"Folder '{folder}' has no file named *{split}*.parquet.")
    images, labels = [], []
    for file in files:
        columns = pq.read_table(file).to_pydict()
        image = next(name for name, values in columns.items() if isinstance(values[0], dict))
        images += [each["bytes"] for each in columns[image]]
        labels += columns["label"]
    with ThreadPoolExecutor() as pool:
        arrays = pool.map(lambda encoded: np.asarray(Image.open(BytesIO(encoded)).convert("RGB")), images, chunksize=64)
        pixels = torch.from_numpy(np.stack(list(arrays)))
    return TensorDataset(pixels.permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))


class Curve(Callback):
    """Writes the accuracies of each epoch with the seconds since training began."""

    def __init__(self, output: Path, settings: dict[str, object]) -> None:
        self.output, self.settings = output, settings

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        epoch, metrics = trainer.current_epoch + 1, trainer.callback_metrics
        line = {
            "epoch": epoch,
            "seconds": round(time.perf_counter() - self.start, 2),
            **{name: round(float(metrics[f"val/{name}"]), 4) for name in ("probe_top1", "knn_top1")},
            "epochs": trainer.max_epochs,
            **self.settings,
        }
        with (self.output / "cifar.jsonl").open("a") as file:
            print(json.dumps(line), file=file)
        if epoch % max(1, (trainer.max_epochs or 1) // FIGURES) == 0 or epoch == trainer.max_epochs:
            draw_cifar(self.output)


class Seconds(Callback):
    """Measures the seconds of each epoch, with its validation."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def fit(args: argparse.Namespace, data: DIETDataModule, epochs: int, *callbacks: Callback) -> None:
    seed_everything(0, verbose=False)
    trainer = Trainer(
        accelerator=args.device,
        devices=1,
        max_epochs=epochs,
        precision=args.precision,
        callbacks=[OnlineLinearProbe(), OnlineKNN(), FiniteGuard(), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(DIETModule(args.backbone), data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=220.0, help="of the whole, from the start of this script")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    start, clock = time.perf_counter(), Seconds()
    data = DIETDataModule.from_datasets(
        read(args.folder, "train"), read(args.folder, "test"), batch_size=args.batch_size, num_workers=0
    )
    fit(args, data, 2, clock)
    each = clock.ends[1] - clock.ends[0]
    epochs = max(1, int(0.95 * (args.seconds - (time.perf_counter() - start)) / each))
    settings = {
        "images_per_s": round(data.num_samples / each),  # with the validation
        "num_samples": data.num_samples,
        **{name: getattr(args, name) for name in ("backbone", "batch_size", "precision")},
        "hardware": hardware(torch.device(args.device)),
        "torch": torch.__version__,
    }
    fit(args, data, epochs, Curve(args.output, settings))


if __name__ == "__main__":
    main()
