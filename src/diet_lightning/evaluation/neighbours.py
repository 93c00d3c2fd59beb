"""Nearest neighbours by cosine similarity and their votes, on any device; scikit-learn's run on the CPU alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diet_lightning.errors import ConfigurationError, require

CHUNK = 2**25  # similarities held at once; with fewer, products of matrices are slower


def nearest_neighbours(queries: Tensor, bank: Tensor, k: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The most similar rows of a bank, exactly, in memory that does not grow with the number of queries times the bank.

    Args:
        queries: Shape ``(M, K)``, floating point.
        bank: Shape ``(N, K)``, of the same dtype and device.
        k: Number of neighbours.
        own: Row of each query in the bank, shape ``(M,)``, which is excluded from its neighbours; None to exclude no row.

    Returns:
        Cosine similarities, descending, and rows of the bank, both ``(M, k)``.

    Raises:
        ConfigurationError: If the bank holds fewer than `k` rows beside the query's own.
    """
    available = len(bank) - (own is not None)
    if not 1 <= k <= available:
        raise ConfigurationError(
            f"Expected argument `k` to be in 1 … {available}, the number of samples to choose neighbours from, but got {k}."
        )
    rows = F.normalize(bank, dim=1)
    found = []
    step = max(1, CHUNK // len(bank))
    for start in range(0, len(queries), step):
        product = F.normalize(queries[start : start + step], dim=1) @ rows.T
        if own is not None:
            product.scatter_(1, own[start : start + step, None], -torch.inf)
        found.append(product.topk(k, dim=1))
    similarities, indices = zip(*found, strict=True)
    return torch.cat(similarities), torch.cat(indices)


def knn_probabilities(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    r"""Class probabilities by neighbours that vote with weight :math:`\exp(s / \tau)` (Wu et al., 2018).

    Args:
        similarity: Cosine similarities of the neighbours, shape ``(M, k)``.
        labels: Labels of the neighbours, shape ``(M, k)``, int64, in ``[0, num_classes)``.
        num_classes: Number of classes.
        temperature: :math:`\tau`; 0.07 is usual.

    Returns:
        Shape ``(M, num_classes)``; rows sum to 1.

    Raises:
        ConfigurationError: If `temperature` is not greater than 0.
    """
    require(temperature > 0.0, "temperature", "greater than 0", temperature)
    weights = (similarity / temperature).softmax(dim=1)  # dividing by the largest weight keeps them finite
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)
