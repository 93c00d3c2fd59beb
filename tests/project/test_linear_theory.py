"""The linear theory against convex optimisation in NumPy and SciPy, and training against the theory."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from scipy.optimize import minimize

from diet_lightning.errors import ConfigurationError
from diet_lightning.figures.style import save_figure
from diet_lightning.objective.loss import loss_floor

sys.path.append(str(Path(__file__).parents[2] / "examples/paper"))
import theory
from theory import clustered_inputs, optimal_loss, optimal_matrix, train_linear
from theory_figures import block_matrices, linear_training

EQUAL, UNEQUAL = [4, 4, 4, 4], [1, 2, 5, 8]
cluster_sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def membership(sizes):
    """Whether each sample (row) is in each cluster (column), float64."""
    return np.repeat(np.eye(len(sizes)), sizes, axis=0)


def loss_and_gradient(logits, sizes, smoothing):
    """Mean loss of all samples and its gradient, written out, for logits ``(N, C)``: duplicates share a column."""
    count = sum(sizes)
    columns = np.repeat(logits, sizes, axis=1)  # (N classes, N samples)
    shifted = columns - columns.max(axis=0)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=0))
    targets = (1 - smoothing) * np.eye(count) + smoothing / count
    loss = -(targets * log_softmax).sum() / count
    return loss, (np.exp(log_softmax) - targets) @ membership(sizes) / count


def numeric_optimum(sizes, smoothing):
    """Least loss over free logits, which is convex, and the softmax of each cluster there, ``(N, C)``."""
    shape = (sum(sizes), len(sizes))

    def objective(flat):
        loss, gradient = loss_and_gradient(flat.reshape(shape), sizes, smoothing)
        return loss, gradient.ravel()

    start = np.random.default_rng(0).normal(size=shape).ravel()
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    logits = found.x.reshape(shape)
    softmax = np.exp(logits - logits.max(axis=0))
    return found.fun, softmax / softmax.sum(axis=0)


def test_documented_values():
    assert doctest.testmod(theory) == (0, 2)


@settings(max_examples=25, deadline=None)
@given(cluster_sizes, st.floats(0.05, 0.99))
def test_closed_form_is_what_convex_optimisation_finds(sizes, smoothing):
    loss, softmax = numeric_optimum(sizes, smoothing)
    assert optimal_loss(sizes, smoothing) == pytest.approx(loss, abs=1e-10)
    matrix = optimal_matrix(sizes, smoothing).numpy()
    np.testing.assert_allclose(matrix, np.repeat(softmax, sizes, axis=1), atol=1e-5)
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-12)


@given(cluster_sizes, st.floats(0, 0.99), st.integers(0, 1000), st.sampled_from([0.1, 1.0, 30.0]))
def test_no_logits_that_duplicates_share_lie_below_the_closed_form(sizes, smoothing, seed, scale):
    logits = scale * np.random.default_rng(seed).normal(size=(sum(sizes), len(sizes)))
    lead = np.log(
        1e-3 + optimal_matrix(sizes, smoothing).numpy()[:, np.cumsum(sizes) - 1]
    )  # and some close to the best
    for each in (logits, lead + 0.01 * logits):
        assert loss_and_gradient(each, sizes, smoothing)[0] >= optimal_loss(sizes, smoothing) - 1e-12


@given(st.integers(2, 50), st.floats(0, 0.99))
def test_special_cases_are_those_known_otherwise(count, smoothing):
    # every sample its own cluster: DIET's floor; all samples one cluster: nothing can be learnt
    assert optimal_loss([1] * count, smoothing) == pytest.approx(loss_floor(count, smoothing), abs=1e-12)
    assert optimal_loss([count], smoothing) == pytest.approx(np.log(count), rel=1e-12)


def test_without_smoothing_the_infimum_is_the_mean_log_of_the_cluster_size():
    assert optimal_loss(EQUAL, 0.0) == pytest.approx(np.log(4), rel=1e-14)
    assert optimal_loss(UNEQUAL, 0.0) == pytest.approx((2 * np.log(2) + 5 * np.log(5) + 8 * np.log(8)) / 16, rel=1e-14)


@pytest.mark.parametrize("smoothing", [0.4, 0.8])
@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL])
def test_training_reaches_the_closed_form(sizes, smoothing):
    inputs = clustered_inputs(sizes, 8, seed=1)
    model = train_linear(inputs, smoothing, seed=1)
    features = inputs.numpy() @ model.projection.numpy().T
    distinct = features[np.cumsum(sizes) - 1]  # (C, D)
    logits = model.weight.numpy() @ distinct.T
    loss, _ = loss_and_gradient(logits, sizes, smoothing)
    best, _ = numeric_optimum(sizes, smoothing)
    assert loss == pytest.approx(best, abs=1e-9)
    assert abs(float(model.losses[-1]) - optimal_loss(sizes, smoothing)) < 1e-7
    assert float(model.losses[-1]) == pytest.approx(loss, abs=1e-14)
    assert (model.losses.diff() < 1e-14).all()  # it falls
    blocks = np.where(membership(sizes) @ membership(sizes).T > 0, (1 - smoothing) / np.repeat(sizes, sizes), 0)
    np.testing.assert_allclose(model.matrix.numpy(), blocks + smoothing / 16, atol=1e-6)
    # rows of a cluster agree on the embeddings' span, and W less its mean row takes the embeddings' weighted sum to 0
    mean = membership(sizes) @ np.diag(1 / np.array(sizes)) @ membership(sizes).T
    np.testing.assert_allclose(logits, mean @ logits, atol=1e-6)
    leads = np.log(1 + (1 - smoothing) * 16 / (smoothing * np.array(sizes)))
    centred = model.weight.numpy() - model.weight.numpy().mean(axis=0)
    np.testing.assert_allclose(centred @ (distinct / leads[:, None]).sum(axis=0), 0, atol=1e-5)
    assert np.abs(model.weight.numpy() - mean @ model.weight.numpy()).max() > 0.1  # beside the span they do not agree


def test_without_smoothing_training_comes_down_to_the_infimum_and_stays_above():
    inputs = clustered_inputs(EQUAL, 8)
    few, more = (train_linear(inputs, 0.0, max_steps=steps) for steps in (10, 60))
    assert len(few.losses) == 11
    assert (few.losses > np.log(4)).all()
    assert np.log(4) < float(more.losses[-1]) < np.log(4) + 1e-6 < float(few.losses[-1])
    assert more.matrix.max() < 0.25 + 1e-4
    assert torch.equal(few.losses, more.losses[:11])  # a function of its arguments


def test_one_embedding_dimension_less_than_clusters_is_enough_and_two_less_are_not():
    for sizes in (EQUAL, UNEQUAL):
        inputs = clustered_inputs(sizes, 5)
        gaps = [
            float(train_linear(inputs, 0.6, hidden_dim).losses[-1]) - optimal_loss(sizes, 0.6) for hidden_dim in (3, 2)
        ]
        assert abs(gaps[0]) < 1e-7
        assert gaps[1] > 1e-3
    assert float(train_linear(inputs, 0.0, 2).losses[-1]) - optimal_loss(UNEQUAL, 0.0) < 1e-6


def test_dependent_clusters_reach_it_only_around_0():
    leads = np.log(1 + 0.4 * 16 / (0.6 * np.array(UNEQUAL)))
    directions = clustered_inputs([1, 1, 1], 3).numpy()
    last = -leads[3] * (directions / leads[:3, None]).sum(axis=0)
    for moved, reached in ((last, True), (last + directions[0], False)):
        inputs = np.repeat(np.vstack([directions, moved]), UNEQUAL, axis=0)
        gap = float(train_linear(torch.from_numpy(inputs), 0.6).losses[-1]) - optimal_loss(UNEQUAL, 0.6)
        assert (abs(gap) < 1e-7) == reached
        assert reached or gap > 1e-4


def test_inputs_are_duplicates_in_independent_directions_drawn_from_the_seed():
    inputs = clustered_inputs(UNEQUAL, 6, seed=3)
    assert inputs.dtype == torch.float64
    assert torch.equal(inputs, clustered_inputs(np.array(UNEQUAL), 6, seed=3))
    assert not torch.equal(inputs, clustered_inputs(UNEQUAL, 6, seed=4))
    unique, counts = np.unique(inputs.numpy(), axis=0, return_counts=True)
    assert sorted(counts) == UNEQUAL
    assert np.linalg.matrix_rank(unique) == 4
    np.testing.assert_allclose(np.linalg.norm(unique, axis=1), 1)


@pytest.mark.parametrize("sizes", [[], [4, 0], [4, -1], [2.0, 2.0], ["4"], [True], 4, [[4, 4]], [float("nan")]])
def test_bad_cluster_sizes_are_named(sizes):
    for function in (optimal_loss, optimal_matrix, lambda given: clustered_inputs(given, 3)):
        with pytest.raises(ConfigurationError, match=r"`cluster_sizes` .*, but got .*\.$"):
            function(sizes)


@pytest.mark.parametrize("smoothing", [1.0, -0.1, float("nan")])
def test_smoothing_outside_its_range_is_named(smoothing):
    for function in (optimal_loss, optimal_matrix):
        with pytest.raises(ConfigurationError, match=rf"`label_smoothing` .*, but got {smoothing}:"):
            function(EQUAL, smoothing)
    with pytest.raises(ConfigurationError, match="`label_smoothing`"):
        train_linear(clustered_inputs(EQUAL, 3), smoothing)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (torch.zeros(4), {}, r"`inputs` .* shape \(4,\)"),
        (torch.zeros(0, 3), {}, r"`inputs` .* shape \(0, 3\)"),
        (torch.tensor([[1.0, np.nan], [np.inf, 0.0]]), {}, "`inputs` .* 2 values that are not finite"),
        (torch.eye(3), {"hidden_dim": 0}, "`hidden_dim` to be at least 1, but got 0"),
        (torch.eye(3), {"max_steps": 0}, "`max_steps` to be at least 1, but got 0"),
    ],
)
def test_bad_training_arguments_are_named(inputs, options, message):
    with pytest.raises(ConfigurationError, match=message):
        train_linear(inputs, **options)


def test_a_dimension_of_0_is_named():
    with pytest.raises(ConfigurationError, match="`dim` to be at least 1, but got 0"):
        clustered_inputs(EQUAL, 0)


def test_figures_draw_what_they_are_given(tmp_path):
    inputs, matrix = clustered_inputs(UNEQUAL, 6), optimal_matrix(UNEQUAL, 0.4)
    gaps = {"ε = 0.4": torch.tensor([0.1, 1e-9, -1e-15]), "ε = 0": np.array([1.0, 0.5])}
    figure = linear_training(inputs, 2 * inputs, UNEQUAL, gaps)
    data, rows, losses = figure.axes[:3]
    np.testing.assert_array_equal(data.images[0].get_array(), inputs)
    np.testing.assert_array_equal(rows.images[0].get_array(), 2 * inputs)
    assert [line.get_ydata()[0] for line in data.lines] == [0.5, 2.5, 7.5]
    np.testing.assert_allclose(losses.lines[0].get_ydata(), [0.1, 1e-9, 1e-16])  # rounding has no logarithm
    np.testing.assert_allclose(losses.lines[1].get_ydata(), [1.0, 0.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(gaps)
    blocks = block_matrices({"a": (matrix.sqrt(), matrix), "b": (matrix, matrix)}, [UNEQUAL, UNEQUAL])
    drawn = [axis.images[0].get_array() for axis in blocks.axes[:4]]
    for found, expected in zip(drawn, (matrix.sqrt(), matrix, matrix, matrix), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len({axis.images[0].get_clim() for axis in blocks.axes[:2]}) == 1  # one scale for both
    for name, each in {"training": figure, "blocks": blocks}.items():
        save_figure(each, tmp_path / f"{name}.png")
        assert imread(tmp_path / f"{name}.png")[0, 0].tolist() == [1, 1, 1, 1]
