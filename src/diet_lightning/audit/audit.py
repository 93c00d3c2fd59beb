"""A trained module looks at its own training data, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from diet_lightning.audit.near_duplicates import Duplicates, mild_views, near_duplicates, neighbourhoods, thumbnails
from diet_lightning.audit.sample_losses import LabelDoubts, datum_losses, label_doubts, most_confused
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.training.module import DIETModule


@dataclass(frozen=True)
class Findings:
    """What an audit finds out, sample by sample.

    Attributes:
        features: Clean embeddings, ``(N, K)``.
        labels: ``(N,)``, -1 where there is none.
        loss: Mean over the augmentations, nats, ``(N,)``.
        spread: Its standard deviation over them, ``(N,)``.
        confused_with: The sample that the classifier takes each for most, ``(N,)``.
        confusion: Its logit less the sample's own, ``(N,)``.
        duplicates: Near-duplicates.
        doubts: On the labels.
    """

    features: Tensor
    labels: Tensor
    loss: NDArray[np.float64]
    spread: NDArray[np.float64]
    confused_with: NDArray[np.int64]
    confusion: NDArray[np.float64]
    duplicates: Duplicates
    doubts: LabelDoubts


def examine(
    module: DIETModule,
    data: DIETDataModule,
    augmentations: int = 4,
    false_discoveries: float = 0.1,
    k: int = 20,
) -> Findings:
    """Looks at every training sample with a trained module.

    Args:
        module: Trained on these data.
        data: The data.
        augmentations: Augmented views of each sample that its loss is the mean of.
        false_discoveries: Expected share of false pairs among the near-duplicates.
        k: Neighbours that judge a label.

    Returns:
        The findings; tensors are on the CPU.
    """
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
                # the same draw for all batches would be the same crops for all of them
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
        for batch in _batches(data, name):
            stored = batch.input.to(device)
            yield batch.index, (look(data.network_inputs(view)).float().cpu() for view in mild_views(stored))

    pixels = neighbourhoods(torch.cat(small), views(thumbnails, "thumbnails")) if small else None
    duplicates = near_duplicates(neighbourhoods(every, views(module, "neighbours")), false_discoveries, pixels)
    doubts = label_doubts(every, given, k)
    module.to(before).train(training)
    return Findings(
        every,
        given,
        loss.mean(dim=1).numpy(),
        loss.std(dim=1, correction=0).numpy(),
        torch.cat(confused).numpy(),
        torch.cat(excess).numpy(),
        duplicates,
        doubts,
    )


def _batches(data: DIETDataModule, name: str) -> Any:
    total = -(-data.num_samples // data.batch_size)
    return tqdm(data.raw_batches("train"), name, total=total, leave=False, delay=2)
