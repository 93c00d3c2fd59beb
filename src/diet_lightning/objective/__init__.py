"""DIET's classifier in its placements: one loss, four ways to keep the N rows."""

from __future__ import annotations

from typing import Literal

from diet_lightning.objective.deferred_step import SteppingHead
from diet_lightning.objective.dense import DatumHead
from diet_lightning.objective.fused import FusedHead
from diet_lightning.objective.sampled import SampledHead
from diet_lightning.objective.sharded import ShardedHead

Placement = Literal["dense", "fused", "sharded", "sampled"]
HEADS: dict[str, type[DatumHead]] = {
    "dense": DatumHead,
    "fused": FusedHead,
    "sharded": ShardedHead,
    "sampled": SampledHead,
}


def serves(placement: str, processes: int) -> bool:
    """Whether a placement can train in so many processes."""
    return processes == 1 or not issubclass(HEADS[placement], SteppingHead)


__all__ = ["HEADS", "DatumHead", "FusedHead", "Placement", "SampledHead", "ShardedHead", "SteppingHead", "serves"]
