"""Time and memory of training steps through `Trainer.fit` at a large N, compared with the memory estimate.

Images are generated from the index, so no files are read. The same run with 1,000 samples comes first: its peak memory is
the backbone's, and the difference to the large run is the head's. Prints one JSON line per run.

    python benchmarks/large_n.py --num-samples 1281167 --head fused
    python benchmarks/large_n.py --num-samples 10000 100000 --head dense fused sampled --moment-bits 32 8
    python benchmarks/large_n.py --num-samples 1281167 --head dense --backbone resnet50 --image-size 224 --precision bf16-mixed
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from head import MB, Peak, hardware
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from diet_lightning import DIETDataModule, DIETModule, HeadConfig
from diet_lightning.errors import ConfigurationError
from diet_lightning.objective.memory_estimate import estimate_memory


class GeneratedImages(Dataset[Tensor]):
    """Images that are a function of their index."""

    def __init__(self, count: int, side: int) -> None:
        self.count, self.side = count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(index))
        return torch.randint(0, 256, (3, self.side, self.side), dtype=torch.uint8, generator=generator)


class Clock(Callback):
    """Measures the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def fit(args: argparse.Namespace, count: int, head: HeadConfig) -> tuple[float, float, int]:
    data = DIETDataModule.from_datasets(
        GeneratedImages(count, args.image_size),
        batch_size=args.batch_size,
        strength=args.strength,
        num_workers=args.workers,
    )
    module, clock = DIETModule(args.backbone, head=head), Clock()
    trainer = Trainer(
        accelerator=args.device,
        devices=1,
        max_steps=args.steps,
        max_epochs=-1,
        precision=args.precision,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with Peak(torch.device("cuda" if args.device in ("gpu", "cuda") else "cpu")) as peak:
        trainer.fit(module, data)
    return peak.extra / MB, statistics.median(clock.seconds[1:] or clock.seconds), module.embed_dim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, nargs="+", default=[1_281_167])
    # `sharded` is the dense head in one process
    parser.add_argument("--head", nargs="+", default=["fused"], choices=["dense", "fused", "sampled"])
    parser.add_argument("--moment-bits", type=int, nargs="+", default=[32], choices=[8, 32], help="8 for fused only")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--strength", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="gpu" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    heads = [
        HeadConfig(kind, moment_bits=bits)
        for kind in args.head
        for bits in args.moment_bits
        if bits == 32 or kind == "fused"
    ]
    fit(args, 1000, heads[0])  # warm-up: memory that a process allocates once counts for neither run
    backbone_mb, _, _ = fit(args, 1000, heads[0])
    for count in args.num_samples:
        for head in heads:
            line = {"num_samples": count, "head": head.kind, "moment_bits": head.moment_bits}
            try:
                line |= measure(args, count, head, backbone_mb)
            except (ConfigurationError, torch.OutOfMemoryError) as error:  # too large for the device
                line["error"] = str(error).splitlines()[0]
            print(json.dumps(line), flush=True)


def measure(args: argparse.Namespace, count: int, head: HeadConfig, backbone_mb: float) -> dict[str, object]:
    peak_mb, seconds, dim = fit(args, count, head)
    device = "cuda" if args.device in ("gpu", "cuda") else "cpu"
    width = 4 if "32" in args.precision else 2
    run = {"product_bytes": width, "device": device, "moment_bits": head.moment_bits}
    estimate = estimate_memory(head.kind, count, dim, args.batch_size, **run)
    return {
        **{name: getattr(args, name) for name in ("backbone", "image_size", "batch_size", "precision")},
        "embed_dim": dim,
        "step_s": round(seconds, 3),
        "peak_mb": round(peak_mb),
        "backbone_mb": round(backbone_mb),
        "head_mb": round(peak_mb - backbone_mb),
        "estimate_mb": round(estimate.total / MB),
        "head_over_estimate": round((peak_mb - backbone_mb) * MB / estimate.total, 3),
        "hardware": hardware(torch.device(device)),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
