"""The objective against a float64 NumPy reference, its invariants, and the head around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.head import DatumHead
from diet_lightning.losses import datum_cross_entropy, loss_floor


def reference(features, weight, index, smoothing):
    """Loss and both gradients from the definition: softmax, smoothed targets, mean over the batch."""
    batch, count = len(features), len(weight)
    logits = features @ weight.T
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = shifted / shifted.sum(axis=1, keepdims=True)
    target = np.full((batch, count), smoothing / count)
    target[np.arange(batch), index] += 1 - smoothing
    loss = -(target * np.log(softmax)).sum(axis=1).mean()
    gradient = (softmax - target) / batch
    return loss, gradient @ weight, gradient.T @ features


sizes = st.integers(1, 6)


@given(sizes, st.integers(2, 9), sizes, st.floats(0, 0.99), st.integers(0, 1000))
def test_loss_and_gradients_equal_numpy_in_float64(batch, count, dim, smoothing, seed):
    rng = np.random.default_rng(seed)
    features, weight = rng.normal(size=(batch, dim)), rng.normal(size=(count, dim))
    index = rng.integers(0, count, size=batch)  # may repeat
    f, w = (torch.tensor(array, requires_grad=True) for array in (features, weight))
    loss = datum_cross_entropy(f, w, torch.tensor(index), smoothing)
    loss.backward()
    for ours, theirs in zip((loss.item(), f.grad, w.grad), reference(features, weight, index, smoothing), strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-12, atol=1e-12)


@given(st.integers(2, 2000), st.floats(0, 0.99))
def test_zero_weights_give_log_n_whatever_the_smoothing(count, smoothing):
    loss = datum_cross_entropy(
        torch.randn(3, 4).double(), torch.zeros(count, 4).double(), torch.tensor([0, 1, 1]), smoothing
    )
    assert loss.item() == pytest.approx(np.log(count), rel=1e-12)


@given(st.integers(2, 500), st.floats(0, 0.99))
def test_floor_is_the_entropy_of_the_smoothed_target(count, smoothing):
    target = np.full(count, smoothing / count)
    target[0] += 1 - smoothing
    entropy = -sum(p * np.log(p) for p in target if p > 0)
    assert loss_floor(count, smoothing) == pytest.approx(entropy, abs=1e-12)


def test_floor_is_reached_by_the_best_logits_and_by_none_below():
    count, smoothing = 7, 0.6
    best = torch.zeros(1, count, dtype=torch.float64)
    best[0, 2] = np.log((1 - smoothing + smoothing / count) / (smoothing / count))
    identity = torch.eye(count, dtype=torch.float64)
    index = torch.tensor([2])
    assert datum_cross_entropy(best, identity, index, smoothing).item() == pytest.approx(loss_floor(count, smoothing))
    nearby = best + 0.1 * torch.randn(50, count, dtype=torch.float64)
    losses = [datum_cross_entropy(row[None], identity, index, smoothing).item() for row in nearby]
    assert min(losses) > loss_floor(count, smoothing)


def test_float32_under_bf16_autocast():
    features, weight, index = torch.randn(4, 8), torch.randn(6, 8), torch.tensor([0, 5, 2, 2])
    exact = datum_cross_entropy(features, weight, index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = datum_cross_entropy(features, weight, index)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-2)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, float("nan")])
def test_smoothing_outside_its_range_is_refused_by_name_and_value(smoothing):
    with pytest.raises(ConfigurationError, match=rf"`label_smoothing` to be in \[0, 1\), but got {smoothing}"):
        datum_cross_entropy(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0]), smoothing)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_index_out_of_range_is_refused_with_value_and_n(wrong):
    with pytest.raises(DataError, match=rf"0 … 2, but got {wrong}: .* 3 training samples"):
        datum_cross_entropy(torch.zeros(2, 2), torch.zeros(3, 2), torch.tensor([0, wrong]))


def test_other_integers_and_dimensions_are_refused():
    with pytest.raises(ConfigurationError, match=r"`index` to be int64, but got torch.int32"):
        datum_cross_entropy(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0], dtype=torch.int32))
    with pytest.raises(ConfigurationError, match=r"\(B, 2\).* but got \(1, 5\)"):
        datum_cross_entropy(torch.zeros(1, 5), torch.zeros(3, 2), torch.tensor([0]))


def test_head_starts_as_a_linear_layer_without_bias():
    torch.manual_seed(0)
    head = DatumHead(5000, 64)
    layer = torch.nn.Linear(64, 5000, bias=False)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    assert head.weight.shape == layer.weight.shape
    for statistic in (torch.min, torch.max, torch.std):
        assert statistic(head.weight).item() == pytest.approx(statistic(layer.weight).item(), rel=5e-3)
    assert abs(head.weight.mean().item()) < 1e-3


@given(st.booleans(), st.booleans(), st.sampled_from([1.0, 0.1]))
def test_head_normalises_what_it_is_asked_to(features_too, rows_too, temperature):
    torch.manual_seed(0)
    head = DatumHead(9, 4, 0.3, features_too, rows_too, temperature).double()
    features, index = torch.randn(5, 4).double(), torch.tensor([0, 8, 3, 3, 1])
    f, w = features.numpy(), head.weight.detach().numpy()
    f = f / np.linalg.norm(f, axis=1, keepdims=True) if features_too else f
    w = w / np.linalg.norm(w, axis=1, keepdims=True) if rows_too else w
    expected, _, _ = reference(f / temperature, w, index.numpy(), 0.3)
    assert head(features, index).item() == pytest.approx(expected, rel=1e-12)


def test_head_refuses_one_sample_and_no_temperature():
    with pytest.raises(ConfigurationError, match="`num_samples` to be at least 2, but got 1"):
        DatumHead(1, 4)
    with pytest.raises(ConfigurationError, match="`temperature` to be greater than 0, but got 0"):
        DatumHead(5, 4, temperature=0.0)
