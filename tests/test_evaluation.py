"""Frozen features and figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import TinyNet, image_data
from lightning.pytorch import Callback
from matplotlib.image import imread
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from diet_lightning import DIETModule, RunFigure
from diet_lightning.evaluation import extract_features, few_shot_top1, linear_top1
from diet_lightning.plots import save_figure, training_curves


@pytest.fixture(scope="module")
def iris():
    data = load_iris()
    order = np.random.default_rng(0).permutation(150)
    return data.data[order[:90]], data.target[order[:90]], data.data[order[90:]], data.target[order[90:]]


def test_linear_top1_is_scikit_learns_on_standardised_features(iris):
    train, labels, test, test_labels = iris
    scaler = StandardScaler().fit(train)
    predicted = LogisticRegression(max_iter=2000).fit(scaler.transform(train), labels).predict(scaler.transform(test))
    assert linear_top1(*iris) == pytest.approx(np.mean(predicted == test_labels))


def test_few_shot_draws_that_many_of_each_class_and_reports_their_spread(iris, monkeypatch):
    drawn = []

    def scored(train, labels, test, test_labels):
        drawn.append(labels)
        return [0.5, 0.7, 0.9][len(drawn) - 1]

    monkeypatch.setattr("diet_lightning.evaluation.linear_top1", scored)
    mean, spread = few_shot_top1(*iris, shots=4, draws=3)
    assert (mean, spread) == (pytest.approx(0.7), pytest.approx(np.std([0.5, 0.7, 0.9])))
    for labels in drawn:
        assert np.bincount(labels).tolist() == [4, 4, 4]


def test_few_shot_is_a_function_of_its_seed(iris):
    assert few_shot_top1(*iris, draws=4) == few_shot_top1(*iris, draws=4)
    assert few_shot_top1(*iris, draws=4) != few_shot_top1(*iris, draws=4, seed=1)
    assert few_shot_top1(*iris, draws=4)[0] > 0.7


def test_features_are_eval_mode_and_leave_the_mode_alone():
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    x = torch.randn(10, 3)
    features = extract_features(network, [x[:6], x[6:]])
    assert network.training
    np.testing.assert_allclose(features, (x @ network[0].weight.T + network[0].bias).detach().numpy(), atol=1e-6)


def test_curves_show_their_numbers(tmp_path):
    figure = training_curves({1: 1.0, 2: 0.25}, {"probe/val_top1": {1: 0.5, 2: 0.875}, "probe/val_top5": {2: 1.0}})
    gap, accuracy = figure.axes
    assert gap.lines[0].get_ydata().tolist() == [1.0, 0.25]
    assert [line.get_label() for line in accuracy.lines] == ["probe/val_top1"]
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
