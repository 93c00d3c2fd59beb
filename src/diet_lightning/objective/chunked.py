r"""Sweeps over the rows of W in chunks, so that no more than a chunk of the B×N logits exists at a time.

The loss of `datum_cross_entropy` has the gradient
:math:`\partial \ell / \partial z = \operatorname{softmax}(z) - (1 - \varepsilon) e_n - \varepsilon / N`. One sweep gives the
logsumexp and, with running rescaling, the gradient of the embeddings; a second one gives the gradients of the rows, a chunk
at a time. DIET has B ≲ K ≪ N: chunks of classes read W twice per step, and chunks of the batch would read it once per chunk.
"""

# no `from __future__ import annotations`: torch.library reads the annotations of its operators

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# logits per chunk: on a CPU they fit into the cache, on an accelerator they use all cores
CHUNK_CPU, CHUNK_ACCELERATOR = 2**20, 2**23
FP16_SCALE = 2.0**10  # 1 / N is a normal float16 only if scaled up; the target's 1, scaled so, is far from overflow


def chunk_rows(batch: int, embed_dim: int, device: torch.device) -> int:
    """Rows of W in a chunk, at least 256: bounds the size of the logits and, for small batches, of the rows."""
    values = CHUNK_CPU if device.type == "cpu" else CHUNK_ACCELERATOR
    return max(256, min(values // max(batch, 1), 4 * values // embed_dim))


def compute_dtype(features: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype of the matrix products: autocast's, else W's.

    It is float32 on a CPU without 512-bit vectors, which emulates 16-bit products: they are several times slower than
    32-bit ones, and less exact.
    """
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if dtype.itemsize < 4 and device == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return torch.float32
    return dtype


def _logits(
    features: Tensor, weight: Tensor, dtype: torch.dtype, chunk: int, normalize: bool
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Logits of one chunk of classes after another, in buffers that are reused.

    The layout is ``(classes, batch)``, so that the products with W and, for the gradient, with the batch need no transposed
    copy.

    Yields:
        The first row's number, the rows as they are multiplied, their logits, and a buffer for 16-bit copies of them.
    """
    transposed = features.to(dtype).T.contiguous()  # (K, B)
    products = torch.empty(min(chunk, len(weight)), len(features), dtype=dtype, device=weight.device)
    sums = torch.promote_types(weight.dtype, torch.float32)
    buffer = products if dtype == sums else torch.empty_like(products, dtype=sums)
    for start in range(0, len(weight), chunk):
        rows = weight[start : start + chunk]
        if normalize:
            rows = F.normalize(rows, dim=1)
        rows = rows.to(dtype)
        product, values = products[: len(rows)], buffer[: len(rows)]
        torch.mm(rows, transposed, out=product)
        if buffer is not products:
            values.copy_(product)
        yield start, rows, values, product


@torch.library.custom_op("diet_lightning::scan_classes", mutates_args=())
def scan_classes(
    features: Tensor, weight: Tensor, dtype: torch.dtype, chunk: int, normalize: bool, grad_features: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """First sweep: the sums over the classes that the loss of a sample needs.

    Args:
        features: Embeddings, shape ``(B, K)``.
        weight: Rows, shape ``(n, K)``; all N of them, or a rank's.
        dtype: Of the matrix products.
        chunk: Rows at a time.
        normalize: Whether each row is divided by its L2 norm first.
        grad_features: Whether to compute `mean_row`.

    Returns:
        ``lse`` ``(B,)``, logsumexp of the logits; ``mean_row`` ``(B, K)``, the rows weighted by the softmax, else
        ``(0, K)``; ``row_sum`` ``(K,)``. All float32, or float64 for such weights.
    """
    sums = torch.promote_types(weight.dtype, torch.float32)
    batch, dim = features.shape
    peak = torch.full((batch,), -torch.inf, dtype=sums, device=weight.device)
    total = torch.zeros_like(peak)
    mean_row = torch.zeros(batch if grad_features else 0, dim, dtype=sums, device=weight.device)
    row_sum = torch.zeros(dim, dtype=sums, device=weight.device)
    for start, rows, values, spare in _logits(features, weight, dtype, chunk, normalize):
        higher = torch.maximum(peak, values.amax(0))
        values.sub_(higher).exp_()
        scale = (peak - higher).exp_()
        total = total * scale + values.sum(0)
        if grad_features:
            mean_row.mul_(scale[:, None])
            if dtype == sums:
                mean_row.addmm_(values.T, rows)
            else:
                mean_row += spare.copy_(values).T @ rows
        row_sum += (rows if normalize else weight[start : start + len(rows)]).sum(0, dtype=sums)
        peak = higher
    if grad_features:
        mean_row /= total[:, None]
    return peak + total.log(), mean_row, row_sum


@scan_classes.register_fake
def _(features: Tensor, weight: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim = features.shape
    made = partial(weight.new_empty, dtype=torch.promote_types(weight.dtype, torch.float32))
    return made(batch), made(batch if settings[-1] else 0, dim), made(dim)


def sweep_gradients(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    epsilon: float,
    count: int,
    dtype: torch.dtype,
    chunk: int,
    normalize: bool,
    out: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Second sweep: the gradient of the rows, a chunk at a time.

    Args:
        features: Embeddings, shape ``(B, K)``.
        weight: Rows, shape ``(n, K)``; a chunk may be changed in place once it was yielded.
        index: Row of each sample, ``(B,)``; outside 0 … n-1 if another rank has the row.
        lse: logsumexp over all N classes, ``(B,)``.
        grad_output: Derivative of the whole loss by each sample's loss, ``(B,)``.
        epsilon: Label smoothing.
        count: N.
        dtype: Of the matrix products.
        chunk: Rows at a time.
        normalize: Whether each row is divided by its L2 norm.
        out: Where the gradient of all rows is written, ``(n, K)``; None for a buffer that each chunk overwrites.

    Yields:
        ``start`` and the gradient of the rows from ``start`` on.
    """
    buffer = torch.empty_like(weight[:chunk]) if out is None else out
    # 16-bit products stay in range at any loss scale
    grad_scale = grad_output.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    fp16_scale = FP16_SCALE if dtype == torch.float16 else 1.0
    direct = dtype == torch.promote_types(weight.dtype, torch.float32) == weight.dtype
    weighted = (features * (grad_output if direct else grad_output / grad_scale)[:, None]).to(dtype)  # (B, K)
    for start, rows, values, spare in _logits(features, weight, dtype, chunk, normalize):
        values.sub_(lse).exp_().sub_(epsilon / count)
        inside = (index >= start) & (index < start + len(rows))
        own = inside.to(values.dtype).mul_(epsilon - 1.0)
        values.scatter_add_(0, (index - start).clamp(0, len(rows) - 1)[None], own[None])
        gradient = buffer[: len(rows)] if out is None else out[start : start + len(rows)]
        if direct:
            torch.mm(values, weighted, out=gradient)
        else:
            if spare.dtype != values.dtype:
                values = spare.copy_(values.mul_(fp16_scale) if fp16_scale != 1.0 else values)
            gradient.copy_((values @ weighted).to(lse.dtype).mul_(grad_scale / fp16_scale))
        if normalize:
            norm = weight[start : start + len(rows)].norm(dim=1, keepdim=True).clamp(min=1e-12)
            gradient.sub_(rows * (rows * gradient).sum(1, keepdim=True)).div_(norm)
        yield start, gradient


@torch.library.custom_op("diet_lightning::row_gradients", mutates_args=())
def row_gradients(
    features: Tensor,
    weight: Tensor,
    index: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    epsilon: float,
    count: int,
    dtype: torch.dtype,
    chunk: int,
    normalize: bool,
) -> Tensor:
    """The gradient of all rows, of the shape and dtype of `weight`; arguments as of `sweep_gradients`."""
    out = torch.empty_like(weight)
    for _ in sweep_gradients(features, weight, index, lse, grad_output, epsilon, count, dtype, chunk, normalize, out):
        pass
    return out


@row_gradients.register_fake
def _(features: Tensor, weight: Tensor, *settings: Any) -> Tensor:
    return torch.empty_like(weight)
