"""Frozen features and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TinyNet, image_data
from lightning.pytorch import Callback
from matplotlib.image import imread
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from diet_lightning import DIETModule, RunFigure
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.evaluation.probes import (
    REGULARISATIONS,
    EvaluationConfig,
    bootstrap_interval,
    evaluate_features,
    extract_features,
    fit_linear_probe,
    knn_predict,
)
from diet_lightning.figures.curves import training_curves
from diet_lightning.figures.style import save_figure


@pytest.fixture(scope="module")
def iris():
    data = load_iris()
    order = np.random.default_rng(0).permutation(150)
    return data.data[order[:90]], data.target[order[:90]], data.data[order[90:]], data.target[order[90:]]


def scikit_learns_probe(train, labels, c):
    scaler = StandardScaler().fit(train)
    return scaler, LogisticRegression(C=c, max_iter=2000).fit(scaler.transform(train), labels)


def test_linear_probe_is_scikit_learns_on_standardised_features(iris):
    train, labels, test, _ = iris
    scaler, reference = scikit_learns_probe(train, labels, 0.3)
    ours = fit_linear_probe(train, labels, c=0.3)
    np.testing.assert_allclose(ours.predict_proba(test), reference.predict_proba(scaler.transform(test)), atol=1e-6)
    np.testing.assert_array_equal(ours.predict(test), reference.predict(scaler.transform(test)))


def test_regularisation_is_the_best_on_held_out_samples_of_every_class():
    generator = np.random.default_rng(0)
    labels, truth = np.repeat([0, 1], 400), np.repeat([0, 1], 2000)
    # one direction that tells, four hundred that only invite to learn by heart
    features, fresh = generator.normal(size=(800, 401)), generator.normal(size=(4000, 401))
    features[:, 0] += 1.5 * labels
    fresh[:, 0] += 1.5 * truth
    chosen = fit_linear_probe(features, labels)[-1].C
    accuracy = {c: fit_linear_probe(features, labels, c).score(fresh, truth) for c in REGULARISATIONS}
    assert chosen < 1.0
    assert accuracy[chosen] > accuracy[10.0] + 0.02


def test_two_samples_a_class_leave_none_to_choose_the_regularisation_on():
    features, labels = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 0, 1, 1])
    assert fit_linear_probe(features, labels)[-1].C == 1.0


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_weighted_neighbours_are_scikit_learns(iris, temperature):
    train, labels, test, _ = iris
    reference = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1.0 - distance) / temperature)
    ).fit(train, labels)
    ours = knn_predict(train, labels, test, k=7, temperature=temperature)
    np.testing.assert_allclose(ours, reference.predict_proba(test), atol=1e-6)
    np.testing.assert_array_equal(ours.argmax(axis=1), reference.predict(test))


def test_all_scores_are_those_computed_by_hand(iris):
    train, labels, test, truth = iris
    scores, predicted = evaluate_features(*iris, EvaluationConfig(c=1.0, k=5, shots=(4, 500), num_trials=3, seed=7))
    assert list(scores) == ["linear_top1", "knn5_top1", "4shot_top1"]  # no class has 500 samples
    scaler, reference = scikit_learns_probe(train, labels, 1.0)
    np.testing.assert_array_equal(predicted, reference.predict(scaler.transform(test)))
    assert scores["linear_top1"].value == pytest.approx(np.mean(predicted == truth))
    assert scores["linear_top1"].std is None
    generator, accuracies = np.random.default_rng(7), []
    for _ in range(3):
        rows = np.concatenate([generator.permutation(np.flatnonzero(labels == label))[:4] for label in range(3)])
        assert np.bincount(labels[rows]).tolist() == [4, 4, 4]
        scaler, reference = scikit_learns_probe(train[rows], labels[rows], 1.0)
        accuracies.append(np.mean(reference.predict(scaler.transform(test)) == truth))
    assert scores["4shot_top1"].value == pytest.approx(np.mean(accuracies))
    assert scores["4shot_top1"].std == pytest.approx(np.std(accuracies))


def test_top5_counts_the_five_likeliest_of_more_classes():
    generator = np.random.default_rng(0)
    train_labels, test_labels = np.arange(140) % 7, np.arange(70) % 7
    train, test = generator.normal(size=(140, 4)), generator.normal(size=(70, 4))
    scores, _ = evaluate_features(train, train_labels, test, test_labels, EvaluationConfig(c=1.0, shots=()))
    shares = fit_linear_probe(train, train_labels, 1.0).predict_proba(test)
    assert scores["linear_top5"].value == pytest.approx(top_k_accuracy_score(test_labels, shares, k=5))


def test_samples_without_a_label_are_left_out(iris):
    train, labels, test, truth = iris
    hidden = labels.copy()
    hidden[::3] = -1
    scores, _ = evaluate_features(train, hidden, test, truth, EvaluationConfig(c=1.0, shots=()))
    alone, _ = evaluate_features(
        train[hidden >= 0], labels[hidden >= 0], test, truth, EvaluationConfig(c=1.0, shots=())
    )
    assert scores == alone


@pytest.mark.parametrize(("chance", "count"), [(0.9, 200), (0.5, 100)])
def test_bootstrap_interval_covers_the_truth_as_often_as_it_says(chance, count):
    generator = np.random.default_rng(0)
    inside = 0
    for trial in range(300):
        low, high = bootstrap_interval(
            (generator.random(count) < chance).astype(float), level=0.9, resamples=500, seed=trial
        )
        inside += low <= chance <= high
    # 300 trials of 0.9 lie within ±0.052 at three sigma; the percentile interval itself is a little short
    assert 0.83 < inside / 300 < 0.95


def test_bootstrap_of_what_does_not_vary_is_a_point():
    assert bootstrap_interval(np.ones(5)) == (1.0, 1.0)
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)


def test_what_cannot_be_measured_is_told_in_a_sentence(iris):
    train, labels, test, truth = iris
    protocol = EvaluationConfig(c=1.0, shots=())
    with pytest.raises(DataError, match="89 labels for 90 embeddings"):
        evaluate_features(train, labels[:-1], test, truth, protocol)
    with pytest.raises(DataError, match="Class 9 of the test samples has no labelled training sample"):
        evaluate_features(train, labels, test, np.full(60, 9), protocol)
    with pytest.raises(DataError, match="No training sample has a label"):
        evaluate_features(train, np.full(90, -1), test, truth, protocol)
    with pytest.raises(DataError, match="at least two classes, but all 90 training samples have label 0"):
        evaluate_features(train, np.zeros(90, dtype=int), test, np.zeros(60, dtype=int), protocol)
    with pytest.raises(ConfigurationError, match=r"`k` to be in 1 … 90, .* but got 91"):
        evaluate_features(train, labels, test, truth, EvaluationConfig(c=1.0, k=91, shots=()))


def test_features_are_eval_mode_and_leave_the_mode_alone():
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    x = torch.randn(10, 3)
    features = extract_features(network, [x[:6], x[6:]])
    assert network.training
    np.testing.assert_allclose(features, (x @ network[0].weight.T + network[0].bias).detach().numpy(), atol=1e-6)


def test_curves_show_their_numbers(tmp_path):
    figure = training_curves({1: 1.0, 2: 0.25}, {"val/probe_top1": {1: 0.5, 2: 0.875}, "val/probe_top5": {2: 1.0}})
    gap, accuracy = figure.axes
    assert gap.lines[0].get_ydata().tolist() == [1.0, 0.25]
    assert [line.get_label() for line in accuracy.lines] == ["val/probe_top1"]
    assert accuracy.lines[0].get_ydata().tolist() == [50.0, 87.5]
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["0.250", "87.5 %"]
    save_figure(figure, tmp_path / "deep/figure.png")
    pixels = imread(tmp_path / "deep/figure.png")
    assert pixels[0, 0].tolist() == [1, 1, 1, 1]  # white, so that it reads on a dark page
    assert pixels.std() > 0.05


def test_curves_without_a_probe_have_one_panel():
    assert len(training_curves({1: 1.0}, {}).axes) == 1


def test_figure_is_drawn_when_a_run_breaks(make_trainer, tmp_path):
    class Break(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        make_trainer(callbacks=[RunFigure(str(tmp_path)), Break()]).fit(DIETModule(TinyNet()), image_data())
    assert (tmp_path / "figure.png").exists()
