"""An estimate of the memory of the head, before it is allocated."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from diet_lightning.objective.chunked import chunk_rows
from diet_lightning.objective.loss import PLAIN_LOGITS
from diet_lightning.utilities.device_memory import GIB

FLOAT = 4  # bytes


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that the head takes on one device, at the peak of a step.

    Attributes:
        weights: The rows of W.
        gradient: The gradient of the rows, with the copy in which DDP averages it.
        moments: The two moments of AdamW, and the per-row state of ``sampled``.
        workspace: Logits, all or one chunk of them, and copies of embeddings and rows.
    """

    weights: int
    gradient: int
    moments: int
    workspace: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(asdict(self).values())

    def __str__(self) -> str:
        """One line, in GiB or MiB."""
        return f"{_size(self.total)} ({', '.join(f'{name} {_size(value)}' for name, value in asdict(self).items())})"


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def estimate_memory(
    kind: str,
    num_samples: int,
    embed_dim: int,
    batch_size: int,
    devices: int = 1,
    accumulate: int = 1,
    product_bytes: int = FLOAT,
    device: str = "cpu",
    num_sampled: int = 8192,
    moment_bits: int = 32,
) -> MemoryEstimate:
    """Estimates the memory of a head on each device.

    Args:
        kind: ``"dense"``, ``"fused"``, ``"sharded"`` or ``"sampled"``.
        num_samples: N.
        embed_dim: K.
        batch_size: Samples per step and device.
        devices: Processes of the run.
        accumulate: Batches per optimiser step.
        product_bytes: Bytes per number in the matrix products: 4, or 2 under 16-bit precision.
        device: Type of the device, ``"cpu"`` or ``"cuda"``.
        num_sampled: Rows drawn per step, for ``sampled``.
        moment_bits: 32, or 8 for ``fused``.

    Returns:
        The estimate.
    """
    rows = -(-num_samples // devices) if kind == "sharded" else num_samples
    matrix = rows * embed_dim * FLOAT
    batch = batch_size * (devices if kind == "sharded" else accumulate if kind == "fused" else 1)
    embeddings = 4 * batch * embed_dim * FLOAT
    if kind == "sampled":
        drawn = batch_size + num_sampled
        work = 3 * batch_size * drawn * FLOAT + 5 * drawn * embed_dim * FLOAT
        return MemoryEstimate(matrix, drawn * embed_dim * FLOAT, 2 * matrix + 16 * num_samples, work + embeddings)
    copies = product_bytes < FLOAT  # of what is multiplied
    plain = kind == "dense" or (kind == "sharded" and devices == 1)
    if plain and batch * num_samples <= PLAIN_LOGITS:
        work = batch * num_samples * (3 * FLOAT + copies * product_bytes) + copies * matrix // 2
    else:
        chunk = min(chunk_rows(batch, embed_dim, torch.device(device)), rows)
        work = chunk * batch * (FLOAT + copies * product_bytes) + copies * chunk * embed_dim * (product_bytes + FLOAT)
        work += (kind == "fused") * chunk * embed_dim * FLOAT
    gradient = 0 if kind == "fused" else matrix
    if kind == "dense" and devices > 1:
        gradient += matrix  # DDP's buckets
    moments = 2 * matrix
    if kind == "fused" and moment_bits == 8:
        moments = 2 * (matrix // FLOAT + num_samples * FLOAT)
        work += chunk * embed_dim * 2 * FLOAT
    return MemoryEstimate(matrix, gradient, moments, work + embeddings)
