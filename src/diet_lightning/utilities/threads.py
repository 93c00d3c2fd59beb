"""How many threads compute: a function of many indices by several, torch by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

AHEAD = 512  # results that threads compute ahead
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


def map_threaded(function: Callable[[int], Any], count: int, description: str, first: int = 0) -> Iterator[Any]:
    """Results of a function of first … count-1, computed by threads, with a bar.

    Reading files, decoding images and hashing release Python's lock, so that threads run at the same time.

    Yields:
        The results in order; some hundred are computed ahead.
    """
    bar = tqdm(total=count, initial=first, desc=description, leave=False, disable=count - first < LONG)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(first, count, AHEAD):
            for result in pool.map(function, range(start, min(start + AHEAD, count))):
                yield result
                bar.update()
