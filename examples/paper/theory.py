r"""DIET's linear theory: the optimal loss of a linear model in closed form, and training that reaches it.

The logits are :math:`W V x`; N samples form C clusters of exact duplicates, :math:`m_c` in each. Duplicates
share one softmax column :math:`p`, so the mean loss of a cluster is the cross-entropy of :math:`p` against the mean
of its members' smoothed targets. By Gibbs' inequality its minimum is the entropy of that mean, where :math:`p` equals it:

.. math:: p = \frac{1 - \varepsilon}{m_c} + \frac{\varepsilon}{N} \text{ on its own cluster,} \quad
    \frac{\varepsilon}{N} \text{ elsewhere.}

This holds for clusters of equal and of different sizes. The optimal loss is the mean of these entropies over the samples.

**When the optimum is attained.** Let :math:`f_c = V x_c` be the embeddings of the clusters. The optimal logits of a column
are determined up to a constant: those of its own cluster exceed the others by
:math:`g_c = \log(1 + (1 - \varepsilon) N / (\varepsilon m_c))`. For :math:`0 < \varepsilon < 1` a W with these logits exists
if the embeddings are linearly independent, or if :math:`\sum_c f_c / g_c = 0` is their only linear dependence. If V is
learnt too and the clusters are linearly independent, C − 1 embedding dimensions are necessary and sufficient.

**What is learnt.** At the optimum the rows of W of one cluster agree on the span of the embeddings; their components
orthogonal to it are free. W minus its mean row maps :math:`\sum_c f_c / g_c` to 0. So either this sum is 0 and the
embeddings span C − 1 dimensions, or W minus its mean row is orthogonal to the sum. Training reaches both solutions.

**Without smoothing** the target elsewhere is 0, which finite logits cannot give. With several clusters the mean of
:math:`\log m_c` over the samples is an infimum, which the loss approaches from above as the logits grow. The condition is
weaker: rows with :math:`(w_c - w_{c'}) \cdot f_c > 0` for all :math:`c' \ne c`. They exist for any distinct embeddings of
equal norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective.loss import check_label_smoothing, datum_cross_entropy

HISTORY = 40  # history size of L-BFGS; with the default of 10 it takes about 1.5 times as many steps


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A trained linear model; all float64.

    Attributes:
        weight: W, one row per sample, shape ``(N, D)``.
        projection: V, shape ``(D, d)``.
        matrix: A, the softmax of W V X over the classes, shape ``(N, N)``: column n is the prediction for sample n.
        losses: Training loss in nats, before the first step and after each, shape ``(steps + 1,)``.
    """

    weight: Tensor
    projection: Tensor
    matrix: Tensor
    losses: Tensor


def optimal_loss(cluster_sizes: Sequence[int], label_smoothing: float = 0.8) -> float:
    """The smallest training loss of the linear model on clusters of duplicates; without smoothing, its infimum.

    Args:
        cluster_sizes: Samples in each cluster.
        label_smoothing: In ``[0, 1)``.

    Returns:
        The loss, in nats.

    Raises:
        ConfigurationError: If `cluster_sizes` is empty, a size is less than 1, or the smoothing is outside its range.

    Example:
        >>> [round(optimal_loss([4, 4, 4, 4], smoothing), 6) for smoothing in (0.0, 0.4, 0.8)]
        [1.386294, 2.326742, 2.718473]
    """
    sizes, own, rest = _levels(cluster_sizes, label_smoothing)
    count = sizes.sum()
    entropies = sizes * torch.special.entr(own) + (count - sizes) * torch.special.entr(rest)  # (C,)
    return float((sizes * entropies).sum() / count)


def optimal_matrix(cluster_sizes: Sequence[int], label_smoothing: float = 0.8) -> Tensor:
    """The matrix A that attains `optimal_loss`: a block for each cluster.

    A is the softmax of W V X over the classes; it is unique and symmetric. The logits have the same blocks, up to a constant
    in each column. Without smoothing A is a limit.

    Args:
        cluster_sizes: Samples in each cluster, which follow each other.
        label_smoothing: In ``[0, 1)``.

    Returns:
        Shape ``(N, N)``, float64; each column, and each row, sums to 1.

    Raises:
        ConfigurationError: If `cluster_sizes` is empty, a size is less than 1, or the smoothing is outside its range.

    Example:
        >>> optimal_matrix([1, 2], 0.6)[:, 1]
        tensor([0.2000, 0.4000, 0.4000], dtype=torch.float64)
    """
    sizes, own, rest = _levels(cluster_sizes, label_smoothing)
    cluster = torch.arange(len(sizes)).repeat_interleave(sizes)  # (N,)
    return torch.where(cluster[:, None] == cluster, own[cluster], rest)


def _levels(cluster_sizes: Sequence[int], label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """The clusters' sizes, a class's share in its own cluster, both ``(C,)``, and that of any class elsewhere."""
    sizes = _checked_sizes(cluster_sizes)
    epsilon = check_label_smoothing(label_smoothing)
    rest = torch.tensor(epsilon, dtype=torch.float64) / sizes.sum()
    return sizes, (1.0 - epsilon) / sizes.double() + rest, rest


def _checked_sizes(cluster_sizes: Sequence[int]) -> Tensor:
    sizes = np.asarray(cluster_sizes)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or not sizes.size or sizes.min() < 1:
        raise ConfigurationError(
            "Expected argument `cluster_sizes` to be one or more whole numbers of at least 1, such as [4, 4, 4, 4], "
            f"but got {cluster_sizes}: leave out clusters without samples."
        )
    return torch.from_numpy(sizes.astype(np.int64))


def clustered_inputs(cluster_sizes: Sequence[int], dim: int, seed: int = 0) -> Tensor:
    """Clusters of exact duplicates in random directions, linearly independent if `dim` is at least their number.

    Args:
        cluster_sizes: Samples in each cluster, which follow each other.
        dim: d, dimensions of a sample.
        seed: Seed of the directions.

    Returns:
        Samples of norm 1, one a row (the paper's X has them as columns), shape ``(N, d)``, float64.

    Raises:
        ConfigurationError: If `cluster_sizes` is empty, a size or `dim` is less than 1.
    """
    sizes = _checked_sizes(cluster_sizes)
    if dim < 1:
        raise ConfigurationError(f"Expected argument `dim` to be at least 1, but got {dim}.")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(sizes), dim, dtype=torch.float64, generator=generator)
    return torch.nn.functional.normalize(directions, dim=1).repeat_interleave(sizes, dim=0)


def train_linear(
    inputs: Tensor,
    label_smoothing: float = 0.8,
    hidden_dim: int | None = None,
    max_steps: int = 2000,
    seed: int = 0,
) -> LinearModel:
    """Trains W and V on all samples at once, in float64, with the package's loss and no weight decay.

    Both are initialised as in `torch.nn.Linear`. L-BFGS stops where the gradient vanishes or the loss stops decreasing, up
    to rounding.

    Args:
        inputs: Samples, one a row, shape ``(N, d)``.
        label_smoothing: In ``[0, 1)``.
        hidden_dim: D, dimensions of an embedding; None for d.
        max_steps: Maximum number of steps.
        seed: Seed of the initialisation.

    Returns:
        The trained model.

    Raises:
        ConfigurationError: If an argument is outside its range, or `inputs` is not a table of finite numbers.
    """
    epsilon = check_label_smoothing(label_smoothing)
    if inputs.ndim != 2 or not inputs.numel() or not torch.isfinite(inputs).all():
        raise ConfigurationError(
            "Expected argument `inputs` to be finite numbers of shape (N, d), one sample a row, but got shape "
            f"{tuple(inputs.shape)} with {int((~torch.isfinite(inputs)).sum())} values that are not finite."
        )
    samples = inputs.detach().cpu().double()
    count, dim = samples.shape
    hidden = dim if hidden_dim is None else hidden_dim
    for name, value in (("hidden_dim", hidden), ("max_steps", max_steps)):
        if value < 1:
            raise ConfigurationError(f"Expected argument `{name}` to be at least 1, but got {value}.")
    index = torch.arange(count)

    def split(parameters: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        both = torch.tensor(parameters)
        return both[: count * hidden].view(count, hidden), both[count * hidden :].view(hidden, dim)

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, projection = (part.requires_grad_() for part in split(parameters))
        loss = datum_cross_entropy(samples @ projection.T, weight, index, epsilon)
        gradients = torch.autograd.grad(loss, (weight, projection))
        return loss.item(), torch.cat([gradient.flatten() for gradient in gradients]).numpy()

    generator = torch.Generator().manual_seed(seed)
    start = [
        torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator).flatten()
        for shape, bound in (((count, hidden), hidden**-0.5), ((hidden, dim), dim**-0.5))
    ]
    first = torch.cat(start).numpy()
    losses = [objective(first)[0]]

    def keep(intermediate_result: OptimizeResult) -> None:
        losses.append(float(intermediate_result.fun))

    options = {"maxiter": max_steps, "maxfun": 20 * max_steps, "maxcor": HISTORY, "ftol": 0.0, "gtol": 1e-13}
    found = minimize(objective, first, jac=True, method="L-BFGS-B", callback=keep, options=options)
    weight, projection = split(found.x)
    matrix = torch.softmax(weight @ projection @ samples.T, dim=0)
    return LinearModel(weight, projection, matrix, torch.tensor(losses, dtype=torch.float64))
