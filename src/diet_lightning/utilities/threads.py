"""How many threads compute: a function of many indices by several, torch by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

AHEAD = 512  # blocks of results that threads compute ahead
LONG = 2000  # number of indices from which on a bar is shown


@contextmanager
def single_threaded() -> Iterator[None]:
    """Lets torch compute with one thread, where other processes keep the remaining cores busy."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def map_threaded(
    function: Callable[[int], Any], count: int, description: str, first: int = 0, block: int = 1
) -> Iterator[Any]:
    """Results of a function of first … count-1, computed by threads, with a bar.

    Reading files, decoding images and hashing release Python's lock, so that threads run at the same time.

    Args:
        function: Takes an index.
        count: Index after the last.
        description: Text of the bar.
        first: First index.
        block: Number of indices that a thread takes at once, more than 1 where each takes less than some 100 µs.

    Yields:
        The results in order; some hundred blocks are computed ahead.
    """

    def compute(start: int) -> list[Any]:
        return [function(n) for n in range(start, min(start + block, count))]

    bar = tqdm(total=count, initial=first, desc=description, leave=False, disable=count - first < LONG)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:  # more threads would wait for Python's lock
        for start in range(first, count, AHEAD * block):
            for results in pool.map(compute, range(start, min(start + AHEAD * block, count), block)):
                yield from results
                bar.update(len(results))
