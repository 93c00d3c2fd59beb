"""DIET's classifier: the loss, and four kinds of head that store its N rows."""

from diet_lightning.objective.dense import DatumHead
from diet_lightning.objective.fused import FusedHead
from diet_lightning.objective.head_config import HEADS, HeadConfig, serves
from diet_lightning.objective.sampled import SampledHead
from diet_lightning.objective.sharded import ShardedHead

__all__ = [
    "HEADS",
    "DatumHead",
    "FusedHead",
    "HeadConfig",
    "SampledHead",
    "ShardedHead",
    "serves",
]
