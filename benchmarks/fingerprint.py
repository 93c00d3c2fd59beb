"""Time of the fingerprint of a folder of images, at the first start and later, compared with decoding the images once.

Makes JPEGs of 500×375 pixels in a temporary folder, of smooth random fields with some noise. `cold` hashes the files after the
system was asked to drop them from its memory, `warm` hashes them again; both without kept digests. `second_start` finds all digests
kept. Medians of the rounds, except for `cold`, which is the first. `cpu_s` is the processor time of all threads, which depends
less on other work of the machine; `hash_gb_per_cpu_s` is the rate of some hash functions on the mean size of a file, of which
SHA-1 and SHA-256 need a processor with instructions for them (without: `OPENSSL_ia32cap=:~0x20000000`). Prints one JSON line.

    python benchmarks/fingerprint.py --count 5000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from head import hardware
from PIL import Image

from diet_lightning.data import digest_store
from diet_lightning.data.fingerprint import file_digests
from diet_lightning.utilities.threads import map_threaded

SIZE = (500, 375)


def generate(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"class{n % 10}" / f"{n}.jpg" for n in range(count)]
    for path in paths[:10]:
        path.parent.mkdir(parents=True)

    def save(n: int) -> None:
        random = np.random.default_rng(n)
        field = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        pixels = np.asarray(field, np.float32) + random.normal(0, 12, (SIZE[1], SIZE[0], 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[n], quality=90)

    list(map_threaded(save, count, "making images"))
    return paths


def forget(paths: list[Path]) -> None:
    """Asks the system to drop the files from its memory."""
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def decode(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB")


def seconds(function: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Medians of the time that passes and of the processors' time, of all threads."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    passed, processor = zip(*times, strict=True)
    return statistics.median(passed), statistics.median(processor)


def hash_rates(size: int, rounds: int) -> dict[str, float]:
    """Bytes per nanosecond of the processor."""
    content, count = bytes(size), 10**8 // size
    rates = {}
    for name in ("blake2b", "sha256", "sha1"):
        function = getattr(hashlib, name)
        _, processor = seconds(lambda function=function: [function(content) for _ in range(count)], rounds)
        rates[name] = round(size * count / processor / 1e9, 2)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = str(Path(name, "cache"))
        folder = Path(name, "photos")
        paths = generate(folder, args.count)
        size = sum(path.stat().st_size for path in paths)
        digest_store.RACY = 2**62  # keeps nothing
        forget(paths)
        cold = seconds(lambda: file_digests(paths, folder), 1)
        warm = seconds(lambda: file_digests(paths, folder), args.rounds)
        decoding = seconds(lambda: list(map_threaded(lambda n: decode(paths[n]), len(paths), "decoding")), args.rounds)
        digest_store.RACY = 0
        file_digests(paths, folder)
        second = seconds(lambda: file_digests(paths, folder), args.rounds)
        cases = {"cold": cold, "warm": warm, "decoding": decoding, "second_start": second}
        line = {
            "files": args.count,
            "megabytes": round(size / 1e6),
            "s": {case: round(passed, 3) for case, (passed, _) in cases.items()},
            "cpu_s": {case: round(processor, 3) for case, (_, processor) in cases.items()},
            "gb_per_s": round(size / warm[0] / 1e9, 2),
            "gb_per_cpu_s": round(size / warm[1] / 1e9, 2),
            "hash_gb_per_cpu_s": hash_rates(size // args.count, args.rounds),
            "cpu_of_decoding": round(warm[1] / decoding[1], 3),
            "rounds": args.rounds,
            "hardware": hardware(torch.device("cpu")),
            "cores": os.cpu_count(),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
