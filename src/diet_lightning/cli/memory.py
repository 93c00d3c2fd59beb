"""`diet memory`."""

from __future__ import annotations

from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from diet_lightning.errors import require_positive
from diet_lightning.objective import HEADS, serves
from diet_lightning.objective.memory_estimate import estimate_memory
from diet_lightning.utilities.device_memory import GIB


def memory(
    *,
    num_samples: int,
    embed_dim: int = 512,
    batch_size: int = 256,
    devices: int = 1,
    precision: Literal["32", "16"] = "32",
    device: Literal["cpu", "cuda"] = "cuda",
    num_sampled: int = 8192,
    moment_bits: Literal[8, 32] = 32,
) -> None:
    """Estimates the memory that the head takes on each device, for every kind of head.

    Args:
        num_samples: N, the number of training samples.
        embed_dim: K, the dimension of the embeddings: 512 for ResNet-18, 2048 for ResNet-50.
        batch_size: Samples per step and device.
        devices: Number of devices of the run.
        precision: Bits of the matrix products; 16 for bf16-mixed.
        device: Type of the devices: cpu or cuda.
        num_sampled: Rows drawn at each step, for the kind sampled.
        moment_bits: Bits per number in AdamW's moments, for the kind fused.
    """
    sizes = {
        "num_samples": num_samples,
        "embed_dim": embed_dim,
        "batch_size": batch_size,
        "devices": devices,
        "num_sampled": num_sampled,
    }
    require_positive(**sizes)
    columns = (
        Column(name, justify="right") for name in ("weights", "gradient", "moments", "work space", "on each device")
    )
    title = f"Head of {num_samples:,} × {embed_dim:,}, batch {batch_size} on each of {devices} {device}"
    table = Table("head kind", *columns, title=title)
    for kind in (name for name in HEADS if serves(name, devices)):
        found = estimate_memory(
            kind, **sizes, product_bytes=int(precision) // 8, device=device, moment_bits=moment_bits
        )
        parts = (found.weights, found.gradient, found.moments, found.workspace, found.total)
        table.add_row(kind, *(f"{part / GIB:.3f} GiB" for part in parts))
    Console().print(table)
