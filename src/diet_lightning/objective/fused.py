"""FusedHead: W's gradient and its AdamW step in one sweep, so that the N×K gradient never exists."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from diet_lightning.objective.adamw import adamw_step
from diet_lightning.objective.chunked import chunk_rows, compute_dtype, scan_classes, sweep_gradients
from diet_lightning.objective.deferred_step import DeferredStepHead
from diet_lightning.objective.loss import smoothed_row, target_rows
from diet_lightning.objective.moments import Moments, Moments8bit


class _Pending(NamedTuple):
    """Data of a batch since the last step, for the second sweep."""

    features: Tensor  # (B, K)
    row: Tensor  # (B,), the samples' indices
    lse: Tensor  # (B,)
    grad_output: Tensor  # (B,), derivative of the whole loss by each sample's
    dtype: torch.dtype


class FusedHead(DeferredStepHead):
    """The head whose gradient is never held: a third less memory than ``dense``, the same result.

    The forward sweep gives the loss and the gradient of the embeddings; a few vectors per sample are stored until the
    optimiser steps. Then a second sweep computes the gradients of the rows a chunk at a time and updates each chunk at once.
    It uses the kernel of `torch.optim.AdamW` and the settings of the parameter group of W, and stores moments in the
    optimiser's state as AdamW does, so checkpoints equal those of the dense head. Batches between two steps (accumulation)
    are swept together.

    Call `attach` with the optimiser before training. One process only; use ``sharded`` for several.

    Args:
        *args: As for `DatumHead`.
        moment_bits: 32, or 8 for moments of a quarter of the size, an approximation, see `Moments8bit`.
        **options: As for `DatumHead`.
    """

    def __init__(self, *args: Any, moment_bits: int = 32, **options: Any) -> None:
        super().__init__(*args, **options)
        self.moment_bits = moment_bits

    def _make_moments(self, optimizer: Optimizer) -> Moments:
        if self.moment_bits == 32:
            return super()._make_moments(optimizer)
        moments = Moments8bit(self.weight)
        moments.keep_dtype(optimizer)
        return moments

    def _loss(self, features: Tensor, index: Tensor) -> Tensor:
        self._check(features, index)
        dtype = compute_dtype(features, self.weight)
        with torch.autocast(features.device.type, enabled=False):
            losses: Tensor = _FusedLoss.apply(features, self.weight, index, self, dtype)
        return losses.mean()

    def _step(self, pending: list[_Pending], group: dict[str, Any], state: dict[str, Tensor]) -> None:
        """The second sweep, after the optimiser's own step."""
        features, index, lse, grad_output = (torch.cat(parts) for parts in list(zip(*pending, strict=True))[:4])
        weight = self.weight.detach()
        chunk = chunk_rows(len(index), weight.shape[1], weight.device)
        buffer = torch.empty(min(chunk, len(weight)), weight.shape[1], dtype=weight.dtype, device=weight.device)
        sweep = sweep_gradients(
            features,
            weight,
            index,
            lse,
            grad_output,
            self.label_smoothing,
            self.num_samples,
            pending[0].dtype,
            chunk,
            self.normalize_rows,
            lambda start, stop: buffer[: stop - start],
        )
        for start, gradient in sweep:
            self._step_rows(start, gradient, group, state)
        state["step"] += 1

    def _step_rows(self, start: int, gradient: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> None:
        stop = start + len(gradient)
        with self._moments.rows(state, start, stop) as (average, square):
            adamw_step([self.weight.detach()[start:stop]], [gradient], [average], [square], state["step"], group)


class _FusedLoss(torch.autograd.Function):
    """Losses of the samples; the backward pass leaves the gradient of the rows for the optimiser's step."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, index: Tensor, head: FusedHead, dtype: torch.dtype
    ) -> Tensor:
        epsilon, count, normalize = head.label_smoothing, head.num_samples, head.normalize_rows
        chunk = chunk_rows(len(index), weight.shape[1], weight.device)
        lse: Tensor
        lse, mean_row, row_sum = scan_classes(features, weight, dtype, chunk, normalize, ctx.needs_input_grad[0])
        wanted = smoothed_row(target_rows(weight, index, normalize), row_sum, epsilon, count)
        # the grad_features now, as W may be stepped on before a second backward pass
        ctx.save_for_backward(features, index, lse, mean_row - wanted if ctx.needs_input_grad[0] else mean_row)
        ctx.head, ctx.dtype = head, dtype
        return lse - (features * wanted).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, index, lse, grad_features = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            ctx.head._pending.append(_Pending(features.detach(), index, lse, gradients[0], ctx.dtype))
        by_features = (gradients[0][:, None] * grad_features).to(features.dtype) if ctx.needs_input_grad[0] else None
        return by_features, None, None, None, None
