"""The number of dimensions that embeddings use, from second moments, which are summed over batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7  # RankMe's epsilon, added to each share


def singular_values(second_moment: Tensor, count: int) -> Tensor:
    """Singular values of embeddings f, descending, shape ``(min(count, K),)``.

    Args:
        second_moment: Sum over the samples of ``f fᵀ``, shape ``(K, K)``, float64.
        count: Number of samples.
    """
    squares: Tensor = torch.linalg.eigvalsh(second_moment)
    return squares.clamp(min=0.0).sqrt().flip(0)[:count]


def rankme(values: Tensor) -> float:
    r"""RankMe: :math:`\exp(-\sum_k p_k \log p_k)`, with :math:`p_k = \sigma_k / \lVert \sigma \rVert_1 + 10^{-7}`.

    Garrido et al., *RankMe*, ICML 2023, equation 1.

    Args:
        values: Singular values of the embeddings, shape ``(r,)``.

    Returns:
        Between 1, for embeddings on a line through 0, and their dimension.
    """
    total = values.sum()
    if total == 0:
        return 1.0
    return float(torch.special.entr(values / total + EPSILON).sum().exp())


def effective_rank(second_moment: Tensor, total: Tensor, count: int) -> float:
    r"""Number of directions in which embeddings vary: :math:`\exp` of the entropy of the covariance's eigenvalues.

    Unlike RankMe it ignores the mean, and weights directions by their variance.

    Args:
        second_moment: Sum of outer products, shape ``(K, K)``, float64.
        total: Sum of the embeddings, shape ``(K,)``, float64.
        count: Number of samples.

    Returns:
        Between 1 and K; 1 if the embeddings do not vary.
    """
    mean = total / count
    values = torch.linalg.eigvalsh(second_moment / count - torch.outer(mean, mean)).clamp(min=0.0)
    if values[-1] <= EPSILON**2 * (mean @ mean):  # the subtraction may round below 0
        return 1.0
    return float(torch.special.entr(values / values.sum()).sum().exp())
