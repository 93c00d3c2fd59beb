"""Evaluation of frozen features: linear probe, weighted nearest neighbours and few labels, each with an interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from diet_lightning.errors import DataError
from diet_lightning.evaluation.neighbours import knn_probabilities, nearest_neighbours
from diet_lightning.runs.scores import Score

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
REGULARISATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
HELD_OUT = 0.2  # fraction of each class on which the regularisation is chosen
AT_ONCE = 2**22  # values that the bootstrap draws at a time


def extract_features(backbone: nn.Module, batches: Iterable[Tensor]) -> Floats:
    """Computes embeddings with a frozen backbone in eval mode, with a progress bar; the mode is restored.

    Args:
        backbone: Maps ``(B, ...)`` to ``(B, K)``.
        batches: Inputs of the backbone.

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


def fit_linear_probe(features: Floats, labels: Ints, c: float | None = None, seed: int = 0) -> Pipeline:
    """Logistic regression on standardised features.

    Args:
        features: Shape ``(N, K)``.
        labels: Shape ``(N,)``.
        c: Inverse of the L2 regularisation, as in scikit-learn; None selects the best of `REGULARISATIONS` on a held-out
            fifth of each class and then fits on all samples.
        seed: Seed of the hold-out.

    Returns:
        scikit-learn's pipeline, with ``predict`` and ``predict_proba``.

    Raises:
        DataError: If there are fewer than two classes, or lengths differ.
    """
    _check_length(features, labels, "training")
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"Expected labels of at least two classes, but all {len(labels)} training samples have label {labels[0]}."
        )
    folds = np.full(len(labels), -1)
    if c is None:
        # StratifiedShuffleSplit raises an error for classes of one sample, and for more classes than held-out samples
        for rows in _shuffled_classes(labels, np.random.default_rng(seed)):
            folds[rows[: round(HELD_OUT * len(rows))]] = 0  # no sample of a class with two
    if (folds == 0).any():
        from sklearn.model_selection import GridSearchCV, PredefinedSplit

        # of equal scores the first one, with the strongest regularisation, is taken
        options = {"logisticregression__C": REGULARISATIONS}
        search = GridSearchCV(_probe(1.0), options, cv=PredefinedSplit(folds), error_score="raise")
        return search.fit(features, labels).best_estimator_
    return _probe(1.0 if c is None else c).fit(features, labels)


def _probe(c: float) -> Pipeline:
    # here, as importing scikit-learn takes a second, and neighbours and ranks do not need it
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))


def _shuffled_classes(labels: Ints, generator: np.random.Generator) -> list[Ints]:
    """The samples of each class, in random order."""
    return [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _few_shot_predictions(train: Floats, labels: Ints, test: Floats, shots: int, trials: int, seed: int) -> Ints:
    """Predictions of a probe on a few labels of each class, drawn again in each trial, shape ``(trials, M)``."""
    generator = np.random.default_rng(seed)
    predictions = []
    for _ in range(trials):
        chosen = np.concatenate([rows[:shots] for rows in _shuffled_classes(labels, generator)])
        predictions.append(_probe(1.0).fit(train[chosen], labels[chosen]).predict(test))
    return np.stack(predictions)


def knn_predict(train: Floats, train_labels: Ints, test: Floats, k: int = 20, temperature: float = 0.07) -> Floats:
    """Class probabilities, shape ``(M, C)``, of test samples by the votes of their neighbours among the training samples."""
    labels = torch.from_numpy(np.asarray(train_labels, dtype=np.int64))
    similarity, found = nearest_neighbours(torch.from_numpy(test), torch.from_numpy(train), k)
    probabilities: Floats = knn_probabilities(similarity, labels[found], int(labels.max()) + 1, temperature).numpy()
    return probabilities


def bootstrap_interval(
    values: Floats, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over test samples.

    Args:
        values: One number per test sample, such as 1 for a correct prediction, shape ``(M,)``.
        level: Coverage.
        resamples: Number of resampled test sets.
        seed: Seed of the resampling.

    Returns:
        Lower and upper end; both are the mean itself if all values are equal.
    """
    if len(values) < 2 or np.ptp(values) == 0:  # scipy refuses a single value, and rounds the mean of equal ones
        return float(np.mean(values)), float(np.mean(values))
    from scipy.stats import bootstrap  # here, as the import takes half a second

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, AT_ONCE // len(values)),
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of `evaluate_features`.

    Attributes:
        c: Inverse regularisation of the linear probe, see `fit_linear_probe`.
        k: Number of neighbours.
        temperature: Temperature of the neighbours' votes, see `knn_probabilities`.
        shots: Labels per class, for each of the few-label probes.
        num_trials: Number of draws of those labels; scores are means over the trials.
        level: Coverage of the intervals.
        seed: Seed of the hold-out, the trials and the intervals.
    """

    c: float | None = None
    k: int = 20
    temperature: float = 0.07
    shots: Sequence[int] = (1, 5)
    num_trials: int = 20
    level: float = 0.95
    seed: int = 0


def evaluate_features(
    train: Floats, train_labels: Ints, test: Floats, test_labels: Ints, config: EvaluationConfig
) -> tuple[dict[str, Score], Ints]:
    """Measures features by a linear probe, weighted nearest neighbours and few-label probes.

    Args:
        train: Features to fit on, shape ``(N, K)``.
        train_labels: Their labels, shape ``(N,)``; samples without a label (-1) are left out.
        test: Features to measure on, shape ``(M, K)``.
        test_labels: Their labels, shape ``(M,)``, likewise.
        config: Settings.

    Returns:
        Scores by name, with bootstrap intervals over test samples: ``linear_top1``, ``linear_top5`` with more than five
        classes, ``knn{k}_top1``, and ``{n}shot_top1``, at C = 1, if every class has more than n samples; and the linear
        probe's predictions for the labelled test samples.

    Raises:
        DataError: If labels are missing, of another length than the features, or a class of the test samples has no
            training sample.
        ConfigurationError: If `k` is larger than the number of training samples.
    """
    train, train_labels = _labelled(train, train_labels, "training")
    test, test_labels = _labelled(test, test_labels, "test")
    if len(unseen := np.setdiff1d(test_labels, train_labels)):
        raise DataError(
            f"Class {int(unseen[0])} of the test samples has no labelled training sample, so no probe can know it: label "
            "some, or leave it out of the test split."
        )
    probe = fit_linear_probe(train, train_labels, config.c, config.seed)
    predicted: Ints = probe.predict(test)
    correct: dict[str, NDArray[Any]] = {"linear_top1": predicted == test_labels}
    if len(probe.classes_) > 5:  # scikit-learn's top_k_accuracy_score gives the mean alone
        best = np.argpartition(-probe.predict_proba(test), 5, axis=1)[:, :5]
        correct["linear_top5"] = (probe.classes_[best] == test_labels[:, None]).any(axis=1)
    votes = knn_predict(train, train_labels, test, config.k, config.temperature)
    correct[f"knn{config.k}_top1"] = votes.argmax(axis=1) == test_labels
    stds: dict[str, float] = {}
    smallest = int(np.unique(train_labels, return_counts=True)[1].min())
    for shots in (each for each in config.shots if each < smallest):
        guesses = _few_shot_predictions(train, train_labels, test, shots, config.num_trials, config.seed)
        correct[f"{shots}shot_top1"] = (guesses == test_labels).mean(axis=0)
        stds[f"{shots}shot_top1"] = float((guesses == test_labels).mean(axis=1).std())
    scores = {}
    for name, each in correct.items():
        low, high = bootstrap_interval(each.astype(np.float64), config.level, seed=config.seed)
        scores[name] = Score(float(each.mean()), low, high, stds.get(name))
    return scores, predicted


def _labelled(features: Floats, labels: Ints, name: str) -> tuple[Floats, Ints]:
    _check_length(features, labels, name)
    if not (labels >= 0).any():
        raise DataError(
            f"No {name} sample has a label, so no probe can be measured: add labels, or leave out the probes."
        )
    return features[labels >= 0], labels[labels >= 0]


def _check_length(features: Floats, labels: Ints, name: str) -> None:
    if len(features) != len(labels):
        raise DataError(
            f"Expected one label per {name} sample, but got {len(labels)} labels for {len(features)} embeddings."
        )
