"""Images per second from JPEG files to augmented, normalised batches: ours, and torchvision v2's in a plain DataLoader.

Makes JPEG files of smooth random fields with some noise in a temporary folder. Every case runs in a process of its own, in turn,
`--rounds` times: `ours` is the training loader of `DIETDataModule` with its pipeline, `torchvision` an `ImageFolder` in a
`DataLoader`, with the same augmentation. `images_per_s` is the median over the rounds of the images after the first batches by
their time; `cpu_ms` is the processors' time of all processes for one image, which depends less on what else the machine does.
`stages` are milliseconds of one thread for one image: reading, decoding, to a tensor, crop, and the rest of the augmentation on
batches. Prints one JSON line per case.

    python benchmarks/jpeg.py --pixels 500 375 --count 2000 --size 224 --workers 2
    python benchmarks/jpeg.py --pixels 4000 3000 --count 64 --size 224 --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augment import torchvisions
from head import hardware
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from diet_lightning import DIETDataModule
from diet_lightning.transforms.geometry import RandomCrops
from diet_lightning.transforms.pipeline import InputPipeline
from diet_lightning.utilities.threads import map_threaded

CASES = ("ours", "torchvision")


def generate(folder: Path, count: int, size: tuple[int, int]) -> None:
    (folder / "all").mkdir()

    def save(n: int) -> None:
        random = np.random.default_rng(n)
        field = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(field, np.float32) + random.normal(0, 12, (size[1], size[0], 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"all/{n}.jpg", quality=90)

    list(map_threaded(save, count, "making images"))


def ours(args: argparse.Namespace) -> Iterator[int]:
    data = DIETDataModule(
        f"folder:{args.folder}",
        batch_size=args.batch_size,
        image_size=args.size,
        strength=args.strength,
        in_memory=False,
        holdout=0.0,
        num_workers=args.workers,
    )
    data.setup()
    loader = data.train_dataloader()
    for epoch in range(1000):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for step, batch in enumerate(loader):
            data._pipeline.augmented(batch.input, (0, epoch, step), 1, 0, cropped=True)
            yield len(batch.index)


def plain(args: argparse.Namespace) -> Iterator[int]:
    files = ImageFolder(args.folder, torchvisions(args.size, args.strength))
    loader: DataLoader[Any] = DataLoader(
        files, args.batch_size, shuffle=True, num_workers=args.workers, persistent_workers=args.workers > 0
    )
    while True:
        for images, _ in loader:
            yield len(images)


def cpu_seconds() -> float:
    """Of this process and its living children."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = sum(getattr(resource.getrusage(resource.RUSAGE_SELF), name) for name in ("ru_utime", "ru_stime"))
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in children.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def child(args: argparse.Namespace) -> None:
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    batches = (ours if args.case == "ours" else plain)(args)
    for _ in range(args.warmup):
        next(batches)
    start, cpu, images = time.perf_counter(), cpu_seconds(), 0
    while images < args.measured:
        images += next(batches)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    print(json.dumps({"images_per_s": images / seconds, "cpu_ms": 1000 * cpu / images}))
    os._exit(0)  # without waiting for the workers' next epochs


def stages(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of one thread for one image."""
    torch.set_num_threads(1)
    paths = [str(path) for path in sorted(Path(args.folder).glob("all/*.jpg"))[: args.batch_size]]
    crops = RandomCrops((0.08, 1.0), (3 / 4, 4 / 3), 0.5, (args.size, args.size)).at((0, 0, 0), len(paths))
    data = DIETDataModule(f"folder:{args.folder}", image_size=args.size, in_memory=False, holdout=0.0)
    data.setup()
    files = data._splits["train"].dataset

    def timed(run: Callable[[int], Any]) -> float:
        runs = []
        for _ in range(3):
            start = time.process_time()
            for n in range(len(paths)):
                run(n)
            runs.append(time.process_time() - start)
        return 1000 * statistics.median(runs) / len(paths)

    def decode(n: int) -> None:
        with Image.open(paths[n]) as image:
            image.load()

    found = {"read": timed(lambda n: Path(paths[n]).read_bytes()), "decode": timed(decode)}
    found["ours_to_crop"] = timed(lambda n: files.read(n, crops, n))
    batch, _ = files.read_batch(range(len(paths)), crops)
    for strength in (1, 3):
        pipeline = InputPipeline(batch[0], args.size, strength, {}, [0.5] * 3, [0.25] * 3)
        found[f"ours_rest_strength_{strength}"] = timed(
            lambda n: n or pipeline.augmented(batch, (0, 0, 0), 1, 0, cropped=True)  # noqa: B023
        )
        transform = torchvisions(args.size, strength)
        opened = [Image.open(path).convert("RGB") for path in paths]
        found[f"torchvision_after_decoding_strength_{strength}"] = timed(lambda n: transform(opened[n]))  # noqa: B023
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # of a child process
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--pixels", type=int, nargs=2, default=[500, 375], help="width and height of the files")
    parser.add_argument("--count", type=int, default=2000, help="number of files")
    parser.add_argument("--measured", type=int, default=2000, help="images that are timed")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--strength", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warmup", type=int, default=8, help="batches before the timing")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.case:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.count, tuple(args.pixels))
        args.folder = folder
        found: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(args.rounds):
            for case in CASES:
                command = [sys.executable, __file__, *sys.argv[1:], "--case", case, "--folder", folder]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[case].append(json.loads(out.splitlines()[-1]))
        described = {name: getattr(args, name) for name in ("pixels", "size", "strength", "batch_size", "workers")}
        medians = {
            case: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for case, runs in found.items()
        }
        for case in CASES:
            line = {"case": case, **described, "threads": args.threads, **medians[case]}
            line["times_torchvision"] = medians[case]["images_per_s"] / medians["torchvision"]["images_per_s"]
            line["cpu_times_torchvision"] = medians["torchvision"]["cpu_ms"] / medians[case]["cpu_ms"]
            print(json.dumps({**line, "rounds": args.rounds, "hardware": hardware(torch.device("cpu"))}))
        print(json.dumps({"case": "stages", **described, **stages(args), "hardware": hardware(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
