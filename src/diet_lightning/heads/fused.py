"""FusedHead: W's gradient and its AdamW step in one sweep, so that the N×K gradient never exists."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from diet_lightning.chunked import chunk_rows, compute_dtype, scan_classes, sweep_gradients
from diet_lightning.errors import ConfigurationError
from diet_lightning.heads.dense import DatumHead
from diet_lightning.losses import check_batch, smoothed_logit, target_rows
from diet_lightning.optim import adamw_step, head_group


class _Awaiting(NamedTuple):
    """What the second sweep needs of a batch that was trained on since the last step."""

    features: Tensor  # (B, K)
    row: Tensor  # (B,), the samples' indices
    lse: Tensor  # (B,)
    share: Tensor  # (B,), derivative of the whole loss by each sample's
    dtype: torch.dtype


class FusedHead(DatumHead):
    """The head whose gradient is never held: a third less memory than ``dense``, the same result.

    The forward sweep gives the loss and the gradient of the embeddings; what is left waits, a few vectors a sample, until
    the optimiser steps. Then a second sweep computes the rows' gradients a chunk at a time and steps on each at once, with
    `torch.optim.AdamW`'s own kernel, the settings of the group that W is in, and moments kept in the optimiser's state as
    AdamW keeps them: a checkpoint is the same as the dense head's. Batches between two steps (accumulation) are swept
    together.

    Call `attach` with the optimiser before training. W's ``grad`` stays None, so what looks at all gradients before the
    step cannot be served: clipping, and the loss scaler of fp16. One process only; use ``sharded`` for several.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._awaiting: list[_Awaiting] = []
        self._attached = False

    def attach(self, optimizer: Optimizer) -> None:
        """Steps on W whenever `optimizer`, an AdamW with W among its parameters, has stepped on the others."""
        optimizer.register_step_post_hook(self._step)
        self._attached = True
        self._awaiting.clear()  # of a run that broke off

    def _loss(self, features: Tensor, index: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not self._attached:
            raise ConfigurationError("A fused head steps with its optimiser: call `attach(optimizer)` before training.")
        check_batch(features, self.weight, index, self.num_samples)
        dtype = compute_dtype(features, self.weight)
        with torch.autocast(features.device.type, enabled=False):
            losses: Tensor = _FusedLoss.apply(features, self.weight, index, self, dtype)
        return losses.mean()

    @torch.no_grad()
    def _step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """The second sweep, after the optimiser's own step."""
        if not self._awaiting:
            return
        features, index, lse, share = (torch.cat(parts) for parts in list(zip(*self._awaiting, strict=True))[:4])
        dtype = self._awaiting[0].dtype
        self._awaiting.clear()
        group = head_group(optimizer, self.weight)
        state = optimizer.state[self.weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=self.weight.device)
            state["exp_avg"] = torch.zeros_like(self.weight)
            state["exp_avg_sq"] = torch.zeros_like(self.weight)
        weight = self.weight.detach()
        chunk = chunk_rows(len(index), weight.device)
        buffer = torch.empty(min(chunk, len(weight)), weight.shape[1], dtype=weight.dtype, device=weight.device)
        smoothing = (self.label_smoothing, self.num_samples)
        sweep = sweep_gradients(
            features,
            weight,
            index,
            lse,
            share,
            smoothing,
            dtype,
            chunk,
            self.normalize_rows,
            lambda start, stop: buffer[: stop - start],
        )
        for start, gradient in sweep:
            rows = slice(start, start + len(gradient))
            adamw_step(
                [weight[rows]],
                [gradient],
                [state["exp_avg"][rows]],
                [state["exp_avg_sq"][rows]],
                state["step"],
                group,
            )
        state["step"] += 1


class _FusedLoss(torch.autograd.Function):
    """Losses of the samples; the backward pass leaves the rows' part for the optimiser's step."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, index: Tensor, head: FusedHead, dtype: torch.dtype
    ) -> Tensor:
        epsilon, count, normalize = head.label_smoothing, head.num_samples, head.normalize_rows
        chunk = chunk_rows(len(index), weight.device)
        lse: Tensor
        lse, mean_row, row_sum = scan_classes(features, weight, dtype, chunk, normalize, ctx.needs_input_grad[0])
        own = target_rows(weight, index, normalize)
        if ctx.needs_input_grad[0]:
            # now, as W may be stepped on before a second backward pass
            mean_row = mean_row - (1.0 - epsilon) * own - (epsilon / count) * row_sum
        ctx.save_for_backward(features, index, lse, mean_row)
        ctx.head, ctx.dtype = head, dtype
        return lse - smoothed_logit(features, own, row_sum, epsilon, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, index, lse, slope = ctx.saved_tensors
        if ctx.needs_input_grad[1]:
            ctx.head._awaiting.append(_Awaiting(features.detach(), index, lse, gradients[0], ctx.dtype))
        by_features = (gradients[0][:, None] * slope).to(features.dtype) if ctx.needs_input_grad[0] else None
        return by_features, None, None, None, None
