"""Label issues: labels that are probably wrong, since the nearest neighbours of the sample have another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.evaluation.neighbours import knn_probabilities, nearest_neighbours


@dataclass(frozen=True)
class LabelIssues:
    """Labels compared with those of the neighbours.

    Attributes:
        suggested_label: The label that the neighbours vote for, shape ``(N,)``, -1 where the sample has none.
        score: Label issue score: the neighbours' probability of another label minus that of the sample's own, shape ``(N,)``,
            in [-1, 1]; above 0 they disagree.
    """

    suggested_label: NDArray[np.int64]
    score: NDArray[np.float64]


@torch.inference_mode()
def label_issues(features: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> LabelIssues:
    """Compares the label of each sample with the labels of its nearest neighbours.

    Args:
        features: Embeddings, shape ``(N, K)``.
        labels: Shape ``(N,)``, int64. Samples without a label (-1) neither vote nor get a score.
        k: Number of neighbours; at most all other samples with a label.
        temperature: Temperature of the votes, see `knn_probabilities`.
    """
    known = torch.nonzero(labels != NO_LABEL)[:, 0]
    suggested = np.full(len(labels), NO_LABEL, dtype=np.int64)
    score = np.zeros(len(labels))
    if len(known) > 1:
        rows, given = features[known], labels[known]
        positions = torch.arange(len(known), device=rows.device)
        similarity, index = nearest_neighbours(rows, rows, min(k, len(known) - 1), own=positions)
        shares = knn_probabilities(similarity, given[index], int(given.max()) + 1, temperature)
        own = shares.gather(1, given[:, None])[:, 0]
        best, other = shares.scatter(1, given[:, None], -1.0).max(dim=1)
        suggested[known.cpu()] = torch.where(best > own, other, given).cpu().numpy()
        score[known.cpu()] = (best - own).double().cpu().numpy()
    return LabelIssues(suggested, score)
