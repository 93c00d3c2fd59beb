"""ShardedHead: the rows of W sharded over the ranks of an ordinary distributed run."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from diet_lightning.objective.chunked import chunk_rows, compute_dtype, row_gradients, scan_classes
from diet_lightning.objective.dense import DatumHead, blocks
from diet_lightning.objective.loss import check_batch, smoothed_row, target_rows


class ShardedHead(DatumHead):
    """The head with N / world rows on each rank; loss and gradients are those of one process with the whole batch.

    A step gathers the embeddings of all ranks (B·K values) and reduces three scalars per sample and the gradient of the
    embeddings. The gradient of W stays local, so DDP must leave ``weight`` out of its reduction. Every rank must have the
    same batch size. Outside a distributed run it is the dense head. Arguments are those of `DatumHead`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.world, self.rank = _place()
        super().__init__(*args, **options)

    @property
    def is_sharded(self) -> bool:
        """Whether other ranks hold the other rows."""
        return self.world > 1

    def on_setup(self) -> None:
        """Keeps the rows of this rank only, if the head was made before the process group or gathered on rank 0."""
        if self.world == 1 and _place()[0] > 1:
            self.world, self.rank = _place()
            if len(self.weight) == self.num_samples:
                self.weight = nn.Parameter(self.state_to_load(self.weight.detach()))

    def on_fit_end(self, optimizer: Optimizer | None, folder: str | Path) -> None:
        """Gathers all rows and their moments on rank 0, mapped from files in `folder`."""
        if not self.is_sharded:
            return
        state = {} if optimizer is None else optimizer.state.pop(self.weight, {})
        full = {name: self.state_to_save(value, folder) for name, value in state.items() if value.ndim == 2}
        weight = self.state_to_save(self.weight.detach(), folder)
        self.world = 1
        if weight is None:
            return
        old, self.weight = self.weight, nn.Parameter(weight)
        for group in [] if optimizer is None else optimizer.param_groups:
            group["params"] = [self.weight if p is old else p for p in group["params"]]
        if optimizer is not None and state:
            optimizer.state[self.weight] = {**state, **full}

    @property
    def rows(self) -> tuple[int, int]:
        """The rows of W held by this rank: the first, and the one after the last."""
        return self._rows_of(self.rank)

    def _rows_of(self, rank: int) -> tuple[int, int]:
        """Equal shares, with one more row on the first ranks if N is not a multiple of the number of ranks."""
        base, more = divmod(self.num_samples, self.world)
        start = rank * base + min(rank, more)
        return start, start + base + (rank < more)

    def _loss(self, features: Tensor, index: Tensor) -> Tensor:
        if not self.is_sharded:
            return super()._loss(features, index)
        check_batch(features, self.weight, index, self.num_samples)
        dtype = compute_dtype(features, self.weight)
        with torch.autocast(features.device.type, enabled=False):
            losses: Tensor = _ShardedLoss.apply(features, self.weight, index, self, dtype)
        return losses.mean()

    def state_to_load(self, full: Tensor) -> Tensor:
        """This rank's rows of a tensor with all N, copied."""
        start, stop = self.rows
        return full[start:stop].clone()

    def state_to_save(self, local: Tensor, folder: str | Path) -> Tensor | None:
        """All N rows from every rank's: on rank 0 in a file below `folder`, which is mapped into memory; None elsewhere."""
        target = _mapped((self.num_samples, *local.shape[1:]), local.dtype, folder) if self.rank == 0 else None
        for rank in range(self.world):
            first, last = self._rows_of(rank)
            for start, stop in blocks(first, last, self.embed_dim):
                if rank == self.rank:
                    message = local[start - first : stop - first].contiguous()
                    if rank != 0:
                        dist.send(message, 0)
                elif target is not None:
                    message = torch.empty(stop - start, *local.shape[1:], dtype=local.dtype, device=local.device)
                    dist.recv(message, rank)
                if target is not None:
                    target[start:stop] = message
        return target


def _place() -> tuple[int, int]:
    """Number of ranks, and this one's."""
    return (dist.get_world_size(), dist.get_rank()) if dist.is_available() and dist.is_initialized() else (1, 0)


def _mapped(shape: tuple[int, ...], dtype: torch.dtype, folder: str | Path) -> Tensor:
    """A tensor that is mapped from an unlinked file, so that the system can write it to disk when memory is short."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=dtype).view(shape)


def _gathered(local: Tensor) -> Tensor:
    """The ranks' tensors along the first dimension, in the order of the ranks."""
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


class _ShardedLoss(torch.autograd.Function):
    """Losses of this rank's samples, over all classes."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, index: Tensor, head: ShardedHead, dtype: torch.dtype
    ) -> Tensor:
        epsilon, count, normalize = head.label_smoothing, head.num_samples, head.normalize_rows
        everyone = _gathered(features)  # (B·world, K)
        first, last = head.rows
        wanted = _gathered(index) - first  # (B·world,), outside 0 … last-first-1 if another rank has the row
        chunk = chunk_rows(len(wanted), weight.shape[1], weight.device)
        lse_here, mean_row, row_sum = scan_classes(everyone, weight, dtype, chunk, normalize, True)
        lse = torch.logsumexp(_gathered(lse_here[None]), dim=0)
        here = (wanted >= 0) & (wanted < last - first)
        own = target_rows(weight, wanted.clamp(0, last - first - 1), normalize) * here[:, None]
        target = smoothed_row(own, row_sum, epsilon, count)
        # one message: the linear part of the loss, and the gradient of the embeddings
        linear = (everyone * target).sum(1, keepdim=True)
        grad_features = mean_row * (lse_here - lse).exp()[:, None] - target
        message = torch.cat([linear, grad_features], dim=1)
        dist.all_reduce(message)
        mine = slice(head.rank * len(index), (head.rank + 1) * len(index))
        ctx.save_for_backward(everyone, weight, wanted, lse, message[mine, 1:])
        ctx.settings = (epsilon, count, dtype, chunk, normalize)
        return lse[mine] - message[mine, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        everyone, weight, wanted, lse, grad_features = ctx.saved_tensors
        by_features = by_weight = None
        if ctx.needs_input_grad[0]:
            by_features = (gradients[0][:, None] * grad_features).to(everyone.dtype)
        if ctx.needs_input_grad[1]:
            # DDP averages the ranks' gradients; W's is not among them
            grad_output = _gathered(gradients[0]) / dist.get_world_size()
            by_weight = row_gradients(everyone, weight, wanted, lse, grad_output, *ctx.settings)
        return by_features, by_weight, None, None, None
