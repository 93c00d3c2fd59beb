"""DIET's classifier in its placements: one loss, four ways to keep the N rows."""

from __future__ import annotations

from typing import Literal

from diet_lightning.heads.dense import DatumHead
from diet_lightning.heads.fused import FusedHead
from diet_lightning.heads.sampled import SampledHead
from diet_lightning.heads.sharded import ShardedHead

Placement = Literal["dense", "fused", "sharded", "sampled"]
HEADS: dict[str, type[DatumHead]] = {
    "dense": DatumHead,
    "fused": FusedHead,
    "sharded": ShardedHead,
    "sampled": SampledHead,
}

__all__ = ["HEADS", "DatumHead", "FusedHead", "Placement", "SampledHead", "ShardedHead"]
