"""Decodes a folder of JPEGs into a cache, with a kill half way and a second run that resumes, and measures the speed of reading it.

The files are written to a temporary folder: noise at a quarter of their size, enlarged. Shuffled batches are read three times
each from the cache, from memory, and from files decoded by the processes of a loader. Prints one JSON line.

    python benchmarks/cache.py --count 20000
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from head import hardware
from PIL import Image

from diet_lightning import DIETDataModule

BUILD = (
    "import sys; from diet_lightning import DIETDataModule as D; D('folder:'+sys.argv[1], image_size=int(sys.argv[2]), "
)
BUILD += "holdout=0.0, cache=sys.argv[3]).setup()"


def generate(folder: Path, count: int, size: int) -> None:
    def save(n: int) -> None:
        noise = np.random.default_rng(n).integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
        file = folder / f"{n % 10}" / f"{n}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize((size, size), Image.Resampling.BILINEAR).save(file, quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(save, range(count)))


def images_per_s(data: DIETDataModule, batches: int) -> float:
    rates = []
    for _ in range(3):
        start, seen = time.perf_counter(), 0
        for number, batch in enumerate(data.train_dataloader()):
            batch.input.sum()  # reads every byte
            seen += len(batch.index)
            if number + 1 == batches:
                break
        rates.append(seen / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--file-size", type=int, default=128, help="side of the files' images, in pixels")
    parser.add_argument("--size", type=int, default=96, help="side of the cached images, in pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name, "photos"), Path(name, "cache")
        generate(folder, args.count, args.file_size)
        command = [sys.executable, "-c", BUILD, str(folder), str(args.size), str(cache)]
        progress = cache / "train.json.partial"

        def done() -> int:
            return json.loads(progress.read_text())["done"] if progress.exists() else 0

        start = time.perf_counter()
        process = subprocess.Popen(command)
        while done() < args.count // 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        first, kept = time.perf_counter() - start, done()
        start = time.perf_counter()
        subprocess.run(command, check=True)
        second = time.perf_counter() - start
        start = time.perf_counter()
        subprocess.run(command, check=True)
        reopened = time.perf_counter() - start
        options = {"source": f"folder:{folder}", "image_size": args.size, "holdout": 0.0, "batch_size": 256}
        rates = {
            "cached": images_per_s(DIETDataModule(**options, cache=str(cache)), 1000),
            "in_memory": images_per_s(DIETDataModule(**options, in_memory=True), 1000),
            "decoded_by_workers": images_per_s(DIETDataModule(**options, in_memory=False), 10),
        }
        line = {
            "images": args.count,
            "size": args.size,
            "cache_mb": round(sum(path.stat().st_size for path in cache.iterdir()) / 2**20),
            "killed_after_images": kept,
            "seconds_until_killed": round(first, 1),
            "seconds_of_the_rest": round(second, 1),
            "seconds_to_open_again": round(reopened, 1),
            "images_per_s": {case: round(rate) for case, rate in rates.items()},
            "cached_of_in_memory": round(rates["cached"] / rates["in_memory"], 2),
            "hardware": hardware(torch.device("cpu")),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
