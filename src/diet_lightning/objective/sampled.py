"""SampledHead: an approximation whose cost does not grow with N."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from diet_lightning.errors import require_positive
from diet_lightning.objective.deferred_step import DeferredStepHead, adamw_step
from diet_lightning.objective.dense import blocks


class SampledHead(DeferredStepHead):
    r"""The head over the batch's own rows and some sampled ones: **another objective**, at a cost independent of N.

    The classes outside the batch are represented by about `num_sampled` rows, drawn uniformly without replacement. The
    logarithm of the number of classes per drawn row is added to its logit (sampled softmax, Jean et al., ACL 2015), and the
    mean of the logits is estimated likewise. The estimates of :math:`\sum_n e^{z_n}` and of the mean are unbiased. The loss
    and its gradients are biased, since the logarithm of an estimate is too small on average; so the loss gap is an estimate.
    Rows are drawn from torch's global generator, as masks of dropout are, since a head has neither seed nor step of its own;
    `DIETModule` seeds that generator by (seed, epoch, step) before each step.

    A row is updated by AdamW's rule at the steps at which it is drawn or in the batch. The weight decay and the decay of the
    moments over the steps between are applied then; the updates by momentum at those steps are omitted. One process only;
    clipping and fp16 are not supported.

    Call `attach` with the optimiser before training.

    Args:
        *args: As for `DatumHead`.
        num_sampled: Rows drawn per step, on average; with N or more all rows are used, and the loss is exact.
        on_cpu: Keep the rows and their moments in the CPU's memory, wherever the backbone is.
        **options: As for `DatumHead`.

    Raises:
        ConfigurationError: If an argument is outside its range.
    """

    last_step: Tensor  # (N,), the step at which a row was last updated
    last_decay: Tensor  # (N,), `decay` at that step
    decay: Tensor  # the logarithm of all decay so far

    def __init__(self, *args: Any, num_sampled: int = 8192, on_cpu: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        require_positive(num_sampled=num_sampled)
        self.num_sampled = num_sampled
        self.on_cpu = on_cpu
        self.register_buffer("last_step", torch.zeros(self.num_samples, dtype=torch.int64))
        self.register_buffer("last_decay", torch.zeros(self.num_samples, dtype=torch.float64))
        self.register_buffer("decay", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SampledHead:
        # `module.to(...)` calls it
        return self if self.on_cpu else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _current(self, ids: Tensor) -> Tensor:
        """Rows with their pending decay applied, ``(n, K)``."""
        missed = (self.decay - self.last_decay[ids]).exp().to(self.weight.dtype)
        return self.weight.detach().index_select(0, ids).mul_(missed[:, None])

    def _loss(self, features: Tensor, index: Tensor) -> Tensor:
        return self.losses(features, index).mean()

    def losses(self, features: Tensor, index: Tensor) -> Tensor:
        """The loss of each sample, ``(B,)``, over the batch's rows and newly drawn ones; embeddings as of `scaled`."""
        self._check(features, index)
        own, target = torch.unique(index.to(self.weight.device), return_inverse=True)
        drawn = self._draw()
        drawn = drawn[torch.isin(drawn, own, invert=True)]
        ids = torch.cat([own, drawn])
        rows = self._current(ids).to(features.device)
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self._pending.append((ids, rows))
        used = F.normalize(rows, dim=1) if self.normalize_rows else rows
        logits = F.linear(features, used)  # (B, own + drawn)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # number of classes outside the batch per drawn row
        stands_for = torch.ones(len(ids), device=logits.device)
        stands_for[len(own) :] = (self.num_samples - len(own)) / max(1, len(drawn))
        total = torch.logsumexp(logits + stands_for.log(), dim=1)
        mean = (logits * stands_for).sum(1) / self.num_samples
        at_target = logits.gather(1, target.to(logits.device)[:, None])[:, 0]
        return total - (1.0 - self.label_smoothing) * at_target - self.label_smoothing * mean

    def _draw(self) -> Tensor:
        """About `num_sampled` distinct ids, ascending for sequential reads; all ids if there are fewer."""
        count, device = self.num_samples, self.weight.device
        if self.num_sampled >= count:
            return torch.arange(count, device=device)
        # the number of draws with `num_sampled` distinct ids on average
        draws = math.ceil(math.log1p(-self.num_sampled / count) / math.log1p(-1.0 / count))
        drawn: Tensor = torch.unique(torch.randint(count, (draws,), device=device))
        return drawn

    def _step(self, pending: list[tuple[Tensor, Tensor]], group: dict[str, Any], state: dict[str, Tensor]) -> None:
        pending = [(ids, rows) for ids, rows in pending if rows.grad is not None]
        if not pending:
            return
        ids, weight, gradient = self._touched(pending)
        (beta1, beta2), lr, weight_decay = group["betas"], group["lr"], group["weight_decay"]
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].to(weight.device)  # resuming moves states to the accelerator
        step = int(state["step"]) + 1
        missed = (step - 1 - self.last_step[ids])[:, None].to(torch.float64)
        average = state["exp_avg"].index_select(0, ids).mul_((beta1**missed).to(weight.dtype))
        square = state["exp_avg_sq"].index_select(0, ids).mul_((beta2**missed).to(weight.dtype))
        adamw_step(weight, gradient, average, square, state["step"], group)
        self.weight.detach().index_copy_(0, ids, weight)
        state["exp_avg"].index_copy_(0, ids, average)
        state["exp_avg_sq"].index_copy_(0, ids, square)
        state["step"] += 1
        self.decay += math.log1p(-lr * weight_decay)
        self.last_step[ids] = step
        self.last_decay[ids] = self.decay

    def _touched(self, pending: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct ids, their rows and the gradients of the rows, on the device of W."""
        device, dtype = self.weight.device, self.weight.dtype
        if len(pending) == 1:
            ids, rows = pending[0]
            return ids, rows.detach().to(device), rows.grad.to(device, dtype)  # type: ignore[union-attr]
        ids, place = torch.unique(torch.cat([ids for ids, _ in pending]), return_inverse=True)
        gradient = torch.zeros(len(ids), self.embed_dim, dtype=dtype, device=device)
        gradient.index_add_(0, place, torch.cat([rows.grad for _, rows in pending]).to(device, dtype))  # type: ignore[misc]
        return ids, self._current(ids), gradient

    def on_fit_end(self, optimizer: Optimizer | None, folder: str | Path) -> None:
        """Applies the pending decay, so that `weight` can be used directly."""
        self.apply_pending_decay()

    @torch.no_grad()
    def apply_pending_decay(self) -> None:
        """Applies the pending weight decay of all rows to `weight`; called after training."""
        for start, stop in blocks(0, self.num_samples, self.embed_dim):
            self.weight.detach()[start:stop] = self._current(torch.arange(start, stop, device=self.weight.device))
        self.last_decay.fill_(self.decay)
