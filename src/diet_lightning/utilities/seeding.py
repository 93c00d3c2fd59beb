"""Derives the seed of a generator from (seed, epoch, step, ...)."""

from __future__ import annotations

import numpy as np


def derive_seed(*entropy: int) -> int:
    """Mixes integers into one seed, so that neighbouring epochs, steps and ranks get unrelated random streams.

    Args:
        *entropy: Non-negative integers, for example ``(seed, epoch, step)``.

    Returns:
        An integer in ``[0, 2**63)``, a function of `entropy` alone.

    Example:
        >>> derive_seed(0, 1, 2) == derive_seed(0, 1, 2)
        True
        >>> derive_seed(0, 1, 2) == derive_seed(0, 2, 1)
        False
    """
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
