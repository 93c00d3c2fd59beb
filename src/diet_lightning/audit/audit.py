"""The audit: a trained module applied to its own training data, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from diet_lightning.audit.label_issues import LabelIssues, label_issues
from diet_lightning.audit.near_duplicates import (
    Duplicates,
    near_duplicates,
    neighbourhoods,
    thumbnails,
    weak_augmentations,
)
from diet_lightning.audit.sample_losses import datum_losses, most_confused
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.training.module import DIETModule


@dataclass(frozen=True)
class AuditResult:
    """Results of an audit, sample by sample.

    Attributes:
        features: Embeddings of the samples without augmentation, ``(N, K)``, on the CPU.
        labels: ``(N,)``, on the CPU, -1 for a sample without a label.
        loss: Mean over the augmentations, nats, ``(N,)``.
        loss_std: Its standard deviation over them, nats, ``(N,)``.
        confused_with: The other sample with the largest logit, ``(N,)``.
        confusion: That logit minus the sample's own, ``(N,)``.
        duplicates: Near-duplicates.
        label_issues: Labels that the neighbours disagree with.
    """

    features: Tensor
    labels: Tensor
    loss: NDArray[np.float64]
    loss_std: NDArray[np.float64]
    confused_with: NDArray[np.int64]
    confusion: NDArray[np.float64]
    duplicates: Duplicates
    label_issues: LabelIssues


def audit_data(
    module: DIETModule,
    data: DIETDataModule,
    augmentations: int = 4,
    fdr: float = 0.1,
    k: int = 20,
) -> AuditResult:
    """Audits training data by a module that was trained on them; the numbers are those of `diet audit`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before, training = module.device, module.training
    module.to(device).eval()
    features, small, labels, losses, confused, excess = [], [], [], [], [], []
    for batch in _batches(data, "losses"):
        with torch.inference_mode():
            stored, index = batch.input.to(device), batch.index.to(device)
            inputs = data.network_inputs(stored)
            clean = module(inputs)
            other, above = most_confused(module.head, clean, index)
            drawn = []
            for draw in range(augmentations):
                # one draw for all batches would give every batch the same crops
                seen = module(data.network_inputs(stored, draw * data.num_samples + int(batch.index[0])))
                drawn.append(datum_losses(module.head, seen, index))
        features.append(clean.float().cpu())
        if inputs.ndim == 4:
            small.append(thumbnails(inputs).float().cpu())
        labels.append(batch.label)
        losses.append(torch.stack(drawn, 1).double().cpu())
        confused.append(other.cpu())
        excess.append(above.double().cpu())
    every, given, loss = torch.cat(features), torch.cat(labels), torch.cat(losses)

    def views(look: Callable[[Tensor], Tensor], name: str) -> Iterator[tuple[Tensor, Iterator[Tensor]]]:
        for batch in _batches(data, name, whole=False):
            stored = batch.input.to(device)
            yield batch.index, (look(data.network_inputs(view)).float().cpu() for view in weak_augmentations(stored))

    pixels = neighbourhoods(torch.cat(small), views(thumbnails, "thumbnails")) if small else None
    duplicates = near_duplicates(neighbourhoods(every, views(module, "neighbours")), fdr, pixels)
    issues = label_issues(every, given, k)
    module.to(before).train(training)
    return AuditResult(
        every,
        given,
        loss.mean(dim=1).numpy(),
        loss.std(dim=1, correction=0).numpy(),
        torch.cat(confused).numpy(),
        torch.cat(excess).numpy(),
        duplicates,
        issues,
    )


def _batches(data: DIETDataModule, name: str, whole: bool = True) -> Any:
    total = -(-data.num_samples // data.batch_size)
    return tqdm(data.raw_batches("train", whole), name, total=total, leave=False, delay=2)
