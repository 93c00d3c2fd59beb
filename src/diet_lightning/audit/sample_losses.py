"""Losses of single samples, and the samples they are confused with, from a trained N-way head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diet_lightning.evaluation.neighbours import CHUNK
from diet_lightning.objective import DatumHead
from diet_lightning.objective.loss import datum_cross_entropy


@torch.inference_mode()
def datum_losses(head: DatumHead, features: Tensor, index: Tensor) -> Tensor:
    """DIET's loss (Algorithm 1) in nats of each sample, from embeddings ``(B, K)`` and indices ``(B,)``, exact at any N."""
    return datum_cross_entropy(
        head.scaled(features), head.weight, index, head.label_smoothing, "none", head.normalize_rows
    )


@torch.inference_mode()
def most_confused(head: DatumHead, features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Finds, for embeddings ``(B, K)`` of samples ``(B,)``, the other sample with the largest logit.

    Returns:
        Its index, int64, and its logit minus the sample's own, both ``(B,)``: at 0 or above the sample is misclassified.
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
