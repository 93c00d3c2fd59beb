"""Images per second of whole training steps, relative to the backbone alone.

Cases: `backbone`, its forward, backward and AdamW step on one fixed batch, which is the upper bound; `diet`, our whole step
with probe, loggers and progress bar through `Trainer.fit`; `algorithm1`, a plain implementation of the paper's Algorithm 1
(DataLoader, torchvision transforms, nn.Linear, CrossEntropyLoss, AdamW); `simclr`, a SimCLR step with two views on the same
backbone. `diet_without_probe`, `_logger`, `_bar` and `_all`, if requested, switch these parts off.

Every case runs in a separate process, in turn, `--rounds` times; `images_per_s` is the median over all timed steps.
`peak_mb` is the peak memory of the process beyond its memory after all imports. Prints one JSON line per case, as soon as
its last round has ended.

    python benchmarks/throughput.py --backbone resnet18 --num-samples 50000
    python benchmarks/throughput.py --backbone resnet8 --size 8 --batch-size 128 --num-samples 1347 --workers 0 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from augment import torchvisions
from head import MB, Peak, hardware
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diet_lightning import DIETDataModule, DIETModule, FiniteGuard, OnlineLinearProbe
from diet_lightning.backbones.factory import create_backbone
from diet_lightning.runs.metrics import run_logger

CASES = ("backbone", "diet", "algorithm1", "simclr")
PARTS = ("probe", "logger", "bar")
WITHOUT = tuple(f"diet_without_{part}" for part in (*PARTS, "all"))
CLASSES = 10


class PILImages(Dataset[Any]):
    """Arrays as PIL images with transforms and indices, like torchvision's CIFAR10."""

    def __init__(self, arrays: np.ndarray[Any, Any], size: int, strength: int, views: int) -> None:
        self.arrays, self.transform, self.views = arrays, torchvisions(size, strength), views

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        image = Image.fromarray(self.arrays[index])
        views = [self.transform(image) for _ in range(self.views)]
        return (views[0] if self.views == 1 else torch.stack(views)), index


class Clock(Callback):
    """Records the time at which each step ends."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.first, self.last, self.times = warmup, warmup + steps, []

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.tick(trainer.strategy.root_device)
        trainer.should_stop = self.done

    def tick(self, device: torch.device) -> None:
        # an accelerator is synchronised only at the first and the last timed step
        if device.type == "cuda" and len(self.times) in (self.first, self.last):
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    @property
    def done(self) -> bool:
        return len(self.times) > self.last


def ours(args: argparse.Namespace, images: Tensor, clock: Clock) -> None:
    without = args.case.removeprefix("diet_without_").split("_")
    parts = {part: args.case == "diet" or not {part, "all"} & set(without) for part in PARTS}
    labels = torch.arange(len(images)) % CLASSES
    data = DIETDataModule.from_datasets(
        TensorDataset(images, labels), batch_size=args.batch_size, strength=args.strength, num_workers=args.workers[0]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if args.device == "cuda" else args.device,
            devices=1,
            max_epochs=10_000,
            precision=args.precision,
            callbacks=[clock, FiniteGuard(), *([OnlineLinearProbe()] if parts["probe"] else [])],
            logger=run_logger(Path(folder), None) if parts["logger"] else False,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=parts["bar"],
            enable_model_summary=False,
        )
        trainer.fit(DIETModule(args.backbone, compile=args.compile), data)


def batches(args: argparse.Namespace, images: Tensor, views: int) -> Iterator[Any]:
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    data = PILImages(arrays, args.size, args.strength, views)
    loader = DataLoader(
        data,
        args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers[0],
        pin_memory=args.device == "cuda",
        persistent_workers=args.workers[0] > 0,
    )
    while True:
        yield from loader


def nt_xent(projections: Tensor, temperature: float = 0.5) -> Tensor:
    projections = F.normalize(projections, dim=1)
    similarity = projections @ projections.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    half = len(projections) // 2
    return F.cross_entropy(similarity, torch.arange(len(projections), device=similarity.device).roll(half))


def by_hand(args: argparse.Namespace, images: Tensor, clock: Clock) -> None:
    device = torch.device(args.device)
    backbone = create_backbone(args.backbone, (3, args.size, args.size), "auto").to(device)
    backbone.lay_out(args.case == "backbone")  # the backbone alone uses the fastest layout, as `diet` does
    if args.compile:
        backbone.compile()
    head: nn.Module
    if args.case == "algorithm1":
        head = nn.Linear(backbone.embed_dim, len(images), bias=False).to(device)
    elif args.case == "simclr":
        head = nn.Sequential(nn.Linear(backbone.embed_dim, 512), nn.ReLU(), nn.Linear(512, 128)).to(device)
    else:
        head = nn.Identity()
    parameters = [*backbone.parameters(), *head.parameters()]
    # the backbone alone uses the fastest optimiser, as `diet` does; the other cases use the default
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, fused=args.case == "backbone" or None)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.8)
    fixed = torch.randn(args.batch_size, 3, args.size, args.size, device=device)
    source = None if args.case == "backbone" else batches(args, images, 2 if args.case == "simclr" else 1)
    while not clock.done:
        x, index = (fixed, None) if source is None else next(source)
        x = x.to(device, non_blocking=True)
        optimizer.zero_grad()
        cast = torch.autocast(device.type, torch.bfloat16) if args.precision == "bf16-mixed" else nullcontext()
        with cast:
            if args.case == "simclr":
                loss = nt_xent(head(backbone(x.transpose(0, 1).flatten(0, 1))))
            elif args.case == "algorithm1":
                loss = criterion(head(backbone(x)), index.to(device))
            else:
                loss = backbone(x).float().square().mean()
        loss.backward()
        optimizer.step()
        clock.tick(device)


def child(args: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    shape = (args.num_samples, 3, args.size, args.size)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))  # faster than torch's
    clock = Clock(args.warmup, args.steps)
    with Peak(torch.device(args.device)) as peak:
        (ours if args.case.startswith("diet") else by_hand)(args, images, clock)
    times = clock.times[args.warmup :]
    steps = [after - before for before, after in pairwise(times)]
    if args.device == "cuda":  # single steps are not synchronised
        steps = [(times[-1] - times[0]) / len(steps)]
    print(json.dumps({"seconds": steps, "peak_mb": peak.extra / MB}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, *WITHOUT], default=list(CASES))
    parser.add_argument("--case", help=argparse.SUPPRESS)  # of a child process
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--num-samples", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--strength", type=int, default=3)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[2], help="numbers of loader processes, each of which is measured"
    )
    parser.add_argument("--diet-workers", type=int, nargs="+", help="the same for diet, if other than --workers")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    if args.case:
        child(args)
        return

    def workers_of(case: str) -> list[int]:
        if case == "backbone":
            return [0]
        return args.diet_workers or args.workers if case.startswith("diet") else args.workers

    cases = sorted(args.cases, key=lambda case: case != "backbone")
    jobs = [(case, n) for case in cases for n in workers_of(case)]
    seconds: dict[Any, list[float]] = {job: [] for job in jobs}
    peaks: dict[Any, list[float]] = {job: [] for job in jobs}
    floor = None
    for number in range(1, args.rounds + 1):
        for case, workers in jobs:
            command = [sys.executable, *sys.argv, "--case", case, "--workers", str(workers)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds[case, workers] += found["seconds"]
            peaks[case, workers].append(found["peak_mb"])
            if number < args.rounds:
                continue
            rate = args.batch_size / statistics.median(seconds[case, workers])
            floor = rate if case == "backbone" else floor  # the first case, where it is measured
            line = {
                "case": case,
                "images_per_s": round(rate, 1),
                "of_backbone": round(rate / floor, 3) if floor else None,
                "peak_mb": round(statistics.median(peaks[case, workers])),
                "workers": workers,
                **{name: getattr(args, name) for name in ("device", "precision", "backbone", "size", "num_samples")},
                **{name: getattr(args, name) for name in ("batch_size", "strength", "compile")},
                "timed_steps": len(seconds[case, workers]),
                "hardware": hardware(torch.device(args.device)),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
