"""What frozen features are worth: linear probe on all labels, and on a few."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def extract_features(backbone: nn.Module, batches: Iterable[Tensor]) -> Floats:
    """Embeddings of a frozen backbone in eval mode, with a bar where it takes long; its mode is put back.

    Args:
        backbone: Maps ``(B, ...)`` to ``(B, K)``.
        batches: Inputs as the backbone reads them.

    Returns:
        Shape ``(N, K)``, float32.
    """
    training = backbone.training
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        backbone.eval()
        features = [
            backbone(batch.to(device)).float().cpu() for batch in tqdm(batches, "embedding", leave=False, delay=2)
        ]
    backbone.train(training)
    return torch.cat(features).numpy()


def linear_top1(train: Floats, train_labels: Ints, test: Floats, test_labels: Ints, c: float = 1.0) -> float:
    """Top-1 accuracy of logistic regression on standardised features.

    Args:
        train: Features to fit on, shape ``(N, K)``.
        train_labels: Their labels, shape ``(N,)``.
        test: Features to measure on, shape ``(M, K)``.
        test_labels: Their labels, shape ``(M,)``.
        c: Inverse of the L2 regularisation, as in scikit-learn.

    Returns:
        Accuracy in [0, 1].
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    return float(probe.fit(train, train_labels).score(test, test_labels))


def few_shot_top1(
    train: Floats,
    train_labels: Ints,
    test: Floats,
    test_labels: Ints,
    shots: int = 5,
    draws: int = 20,
    seed: int = 0,
) -> tuple[float, float]:
    """`linear_top1` with a few labels a class, over random draws of them.

    Args:
        train: Features to draw from, shape ``(N, K)``.
        train_labels: Their labels, shape ``(N,)``.
        test: Features to measure on, shape ``(M, K)``.
        test_labels: Their labels, shape ``(M,)``.
        shots: Labels per class.
        draws: Number of draws.
        seed: Seed of the draws, the same for every feature that is compared.

    Returns:
        Mean and standard deviation of the accuracy over the draws, in [0, 1].
    """
    generator = np.random.default_rng(seed)
    classes = np.unique(train_labels)
    scores = []
    for _ in range(draws):
        chosen = np.concatenate(
            [generator.permutation(np.flatnonzero(train_labels == label))[:shots] for label in classes]
        )
        scores.append(linear_top1(train[chosen], train_labels[chosen], test, test_labels))
    return float(np.mean(scores)), float(np.std(scores))
