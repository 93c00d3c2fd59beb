"""DIET's objective: label-smoothed cross-entropy in which every sample is its own class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from diet_lightning.errors import ConfigurationError, DataError, require
from diet_lightning.objective.chunked import chunk_rows, compute_dtype, row_gradients, scan_classes

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = get_args(Reduction)  # torch.compile of torch 2.6 does not trace the call
PLAIN_LOGITS = 2**23  # up to this number the plain implementation is faster (benchmarks/head.py)


def check_label_smoothing(label_smoothing: float) -> float:
    """Returns `label_smoothing` as a float; raises `ConfigurationError` if it is not in ``[0, 1)``."""
    if not 0.0 <= float(label_smoothing) < 1.0:
        raise ConfigurationError(
            f"Expected argument `label_smoothing` to be in [0, 1), but got {label_smoothing}: at 1 the target no "
            "longer depends on the sample; DIET's default is 0.8."
        )
    return float(label_smoothing)


def datum_cross_entropy(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    label_smoothing: float = 0.8,
    reduction: Reduction = "mean",
    normalize_rows: bool = False,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Label-smoothed cross-entropy of the logits ``features @ weight.T`` against the samples' own indices.

    With logits :math:`z = W f`, target :math:`n` and smoothing :math:`\varepsilon` over :math:`N` classes (DIET,
    Algorithm 1):

    .. math:: \ell = \operatorname{logsumexp}(z) - (1 - \varepsilon) z_n - \frac{\varepsilon}{N} \sum_j z_j

    Loss and gradients are exact at any N. Many ``B·N`` logits are computed in chunks of classes, and again for the gradient
    of `weight`, so that they are never in memory at once. Few logits are computed by the plain implementation, which is
    faster and the only one with second derivatives.

    Args:
        features: Embeddings, shape ``(B, K)``, floating point.
        weight: One row per training sample, shape ``(N, K)``.
        index: Index of each sample in the training set, shape ``(B,)``, int64, in ``[0, N)``; may repeat.
        label_smoothing: Weight of the uniform distribution over all N classes in the target, in ``[0, 1)``.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        normalize_rows: Divide each row of `weight` by its L2 norm.
        chunk_size: Classes per chunk; None chooses it, or the plain implementation if that is faster.

    Returns:
        The loss, a scalar, or ``(B,)`` without reduction; float32 under autocast.

    Raises:
        ConfigurationError: If an argument is outside its range, or shapes or dtypes do not fit.
        DataError: If an index is outside 0 … N-1; on the CPU only, as the check would synchronise an accelerator.

    Example:
        >>> features, weight = torch.randn(2, 3), torch.zeros(5, 3)
        >>> loss = datum_cross_entropy(features, weight, torch.tensor([0, 4]))
        >>> bool(torch.isclose(loss, torch.tensor(5.0).log()))  # log N, whatever the smoothing
        True
    """
    epsilon = check_label_smoothing(label_smoothing)
    check_batch(features, weight, index, len(weight))
    require(reduction in REDUCTIONS, "reduction", f"one of {REDUCTIONS}", reduction)
    require(chunk_size is None or chunk_size >= 1, "chunk_size", "at least 1", chunk_size)
    dtype = compute_dtype(features, weight)
    with torch.autocast(features.device.type, enabled=False):
        if chunk_size is None and len(index) * len(weight) <= PLAIN_LOGITS:
            rows = F.normalize(weight, dim=1) if normalize_rows else weight
            logits = F.linear(features.to(dtype), rows.to(dtype))  # (B, N)
            logits = logits.to(torch.promote_types(dtype, torch.float32))
            return F.cross_entropy(logits, index, label_smoothing=epsilon, reduction=reduction)
        chunk = chunk_size or chunk_rows(len(index), weight.shape[1], weight.device)
        losses: Tensor = ChunkedLoss.apply(features, weight, index, epsilon, dtype, chunk, normalize_rows, None)
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


class ChunkedLoss(torch.autograd.Function):
    """Losses of the samples, ``(B,)``, by two sweeps over the classes.

    With `defer` the backward pass leaves out the second sweep, for the gradient of `weight`, and gives its arguments to
    `defer`: features, index, logsumexp, derivative of the whole loss by each sample's, and dtype.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        index: Tensor,
        epsilon: float,
        dtype: torch.dtype,
        chunk: int,
        normalize: bool,
        defer: Callable[[tuple[Any, ...]], None] | None,
    ) -> Tensor:
        """The first sweep."""
        lse: Tensor
        lse, mean_row, row_sum = scan_classes(features, weight, dtype, chunk, normalize, ctx.needs_input_grad[0])
        wanted = smoothed_row(target_rows(weight, index, normalize), row_sum, epsilon, len(weight))
        grad_features = mean_row - wanted if ctx.needs_input_grad[0] else mean_row
        # a deferred step may change W before a second backward pass
        ctx.save_for_backward(features, weight if defer is None else None, index, lse, grad_features)
        ctx.settings, ctx.defer = (epsilon, len(weight), dtype, chunk, normalize), defer
        return lse - (features * wanted).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The second sweep, or its arguments for `defer`."""
        features, weight, index, lse, grad_features = ctx.saved_tensors
        by_features = by_weight = None
        if ctx.needs_input_grad[0]:
            by_features = (gradients[0][:, None] * grad_features).to(features.dtype)
        if ctx.needs_input_grad[1] and ctx.defer is None:
            by_weight = row_gradients(features, weight, index, lse, gradients[0], *ctx.settings)
        elif ctx.needs_input_grad[1]:
            ctx.defer((features.detach(), index, lse, gradients[0], ctx.settings[2]))
        return by_features, by_weight, None, None, None, None, None, None


def target_rows(weight: Tensor, index: Tensor, normalize: bool) -> Tensor:
    """The samples' own rows, ``(B, K)``, in float32 or float64."""
    own = weight[index].to(torch.promote_types(weight.dtype, torch.float32))
    return F.normalize(own, dim=1) if normalize else own


def smoothed_row(own: Tensor, row_sum: Tensor, epsilon: float, count: int) -> Tensor:
    """The rows weighted by the smoothed target, ``(B, K)``: the loss is the logsumexp minus their product with the embeddings."""
    return (1.0 - epsilon) * own + (epsilon / count) * row_sum


def check_batch(features: Tensor, weight: Tensor, index: Tensor, count: int) -> None:
    """Checks a batch for `datum_cross_entropy`; `weight` may be some of the `count` rows."""
    require(index.dtype == torch.int64, "index", "int64", index.dtype)
    if features.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ConfigurationError(
            f"Expected argument `features` to have shape (B, {weight.shape[1]}), as the rows of `weight` are, but got "
            f"{tuple(features.shape)}."
        )
    if tuple(index.shape) != (len(features),):
        raise ConfigurationError(
            f"Expected argument `index` to have shape ({len(features)},), one index per sample, but got "
            f"{tuple(index.shape)}."
        )
    if features.dtype != weight.dtype and not torch.is_autocast_enabled(features.device.type):
        raise ConfigurationError(
            f"Expected argument `features` to be {weight.dtype}, as `weight` is, but got {features.dtype}: use the "
            "Trainer's `precision`, or autocast."
        )
    if index.device.type != "cpu" or not len(index) or torch.compiler.is_compiling():
        return  # the check would synchronise the accelerator, or break the graph
    if not 0 <= int(index.min()) <= int(index.max()) < count:
        wrong = index[(index < 0) | (index >= count)]
        raise DataError(
            f"Expected every index in 0 … {count - 1}, but got {int(wrong[0])}: the head has one row for each of "
            f"{count} training samples; wrap the data set in IndexedDataset last, after Subset or concatenation."
        )


def loss_floor(num_samples: int, label_smoothing: float) -> float:
    r"""The smallest value of `datum_cross_entropy`: the entropy of the smoothed target over N classes.

    :math:`-p \log p - (N - 1) q \log q` with :math:`q = \varepsilon / N` and :math:`p = 1 - \varepsilon + q`.
    The loss minus this floor is comparable across runs of different N and smoothing.

    Args:
        num_samples: N, the number of training samples.
        label_smoothing: In ``[0, 1)``.

    Returns:
        The entropy, in nats.

    Example:
        >>> loss_floor(16, 0.0)
        0.0
    """
    rest = check_label_smoothing(label_smoothing) / num_samples
    if rest == 0.0:
        return 0.0
    own = 1.0 - label_smoothing + rest
    return -own * math.log(own) - (num_samples - 1) * rest * math.log(rest)
