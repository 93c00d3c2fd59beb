"""Time until the images of a large folder are listed, and until the first batch.

Makes class folders of hard links to small JPEGs in a temporary folder. A separate process lists them; others open them as the
source of a run, one after the other, and read the first batch. Prints one JSON line: wall time and processor time in seconds, and the
peak of memory beyond that before, which the imports take. Of the later starts the fastest is printed, which other programs slowed
down least.

    python benchmarks/listing.py --files 1300000 --folders 1000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from head import hardware
from PIL import Image

MB = 2**10  # kilobytes, the unit of ru_maxrss on Linux


def make_tree(root: Path, images: Path, files: int, folders: int, distinct: int) -> None:
    """Links, since a file system may not have room for as many files."""
    images.mkdir(parents=True)
    for n in range(distinct):
        noise = np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / f"{n}.jpg")
    for number in range(folders):
        folder = root / f"n{number:08d}"
        folder.mkdir(parents=True)
        for n in range(number, files, folders):
            (folder / f"{folder.name}_{n}.jpg").hardlink_to(images / f"{n % distinct}.jpg")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB


def list_tree(root: str) -> dict[str, float]:
    from diet_lightning.data.listing import list_images

    before, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    listing = list_images(root)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"files": len(listing.paths), "list_s": seconds, "list_cpu_s": cpu, "list_mb": peak_mb() - before}


def first_batch(root: str) -> dict[str, float]:
    from diet_lightning import DIETDataModule

    before, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    data = DIETDataModule(f"folder:{root}", image_size=32, in_memory=False, num_workers=0)
    data.setup("fit")
    opened = time.perf_counter()
    next(iter(data.train_dataloader()))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"open_s": opened - start, "first_batch_s": seconds, "cpu_s": cpu, "mb": peak_mb() - before}


def measured(task: str, root: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--task", task, "--root", root]
    cache = {"XDG_CACHE_HOME": str(root.parent / "cache")}  # of the digests of files
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache})
    values = json.loads(done.stdout.splitlines()[-1])
    return {name: round(value, 2) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_300_000)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="number of later starts")
    parser.add_argument("--task", choices=["list", "open"])
    parser.add_argument("--root")
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps({"list": list_tree, "open": first_batch}[arguments.task](arguments.root)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tree")
        make_tree(root, Path(folder, "images"), arguments.files, arguments.folders, arguments.distinct)
        line = {
            "benchmark": "listing",
            "folders": arguments.folders,
            **measured("list", root),
            "first_start": measured("open", root),
            "second_start": min(
                (measured("open", root) for _ in range(arguments.rounds)), key=lambda each: each["cpu_s"]
            ),
            "rounds": arguments.rounds,
            "hardware": hardware(torch.device("cpu")),
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
