"""What the N-way classifier knows about a data set: hard samples and likely label errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.evaluation.neighbours import CHUNK, knn_probabilities, nearest_neighbours
from diet_lightning.objective import DatumHead
from diet_lightning.objective.loss import datum_cross_entropy

# -- loss and confusions -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def datum_losses(head: DatumHead, features: Tensor, index: Tensor) -> Tensor:
    """DIET's loss of each sample (Algorithm 1), exact at any N.

    Args:
        head: The trained head.
        features: Embeddings, shape ``(B, K)``.
        index: Sample indices, shape ``(B,)``, int64.

    Returns:
        Nats, shape ``(B,)``.
    """
    return datum_cross_entropy(
        head.scaled(features), head.weight, index, head.label_smoothing, "none", head.normalize_rows
    )


@torch.inference_mode()
def most_confused(head: DatumHead, features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The sample, other than itself, that the classifier takes each sample for most.

    Args:
        head: The trained head.
        features: Embeddings, shape ``(B, K)``.
        index: Sample indices, shape ``(B,)``, int64.

    Returns:
        Its index, int64, and its logit less the sample's own, both ``(B,)``: from 0 on up the two are taken for each other.
    """
    weight = F.normalize(head.weight, dim=1) if head.normalize_rows else head.weight
    rows = head.scaled(features)
    step = max(1, CHUNK // len(weight))
    found, excess = [], []
    for part, own in zip(torch.split(rows, step), torch.split(index, step), strict=True):
        logits = part @ weight.T
        mine = logits.gather(1, own[:, None])
        value, other = logits.scatter(1, own[:, None], -torch.inf).max(dim=1)
        found.append(other)
        excess.append(value - mine[:, 0])
    return torch.cat(found), torch.cat(excess)


# -- label errors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelDoubts:
    """What a sample's neighbours say of its label.

    Attributes:
        suggested: The label they vote for, shape ``(N,)``, -1 where the sample has none.
        doubt: Their share for that less their share for the sample's own, shape ``(N,)``, in [-1, 1]; above 0 they disagree.
    """

    suggested: NDArray[np.int64]
    doubt: NDArray[np.float64]


@torch.inference_mode()
def label_doubts(features: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> LabelDoubts:
    """Weighs each label against those of the sample's nearest neighbours, itself left out.

    Args:
        features: Embeddings, shape ``(N, K)``.
        labels: Shape ``(N,)``, int64, -1 where there is none; such samples neither vote nor are judged.
        k: Neighbours; fewer where fewer samples have labels.
        temperature: Of their weights (see `knn_probabilities`).

    Returns:
        The doubts.
    """
    known = torch.nonzero(labels != NO_LABEL)[:, 0]
    suggested = np.full(len(labels), NO_LABEL, dtype=np.int64)
    doubt = np.zeros(len(labels))
    if len(known) > 1:
        rows, given = features[known], labels[known]
        positions = torch.arange(len(known), device=rows.device)
        similarity, index = nearest_neighbours(rows, rows, min(k, len(known) - 1), own=positions)
        shares = knn_probabilities(similarity, given[index], int(given.max()) + 1, temperature)
        own = shares.gather(1, given[:, None])[:, 0]
        best, other = shares.scatter(1, given[:, None], -1.0).max(dim=1)
        suggested[known.cpu()] = torch.where(best > own, other, given).cpu().numpy()
        doubt[known.cpu()] = (best - own).double().cpu().numpy()
    return LabelDoubts(suggested, doubt)
