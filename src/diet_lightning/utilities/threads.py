"""A function of many indices, computed by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

AHEAD = 512  # results that threads compute ahead
LONG = 2000  # number of indices from which on a bar is shown


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
