"""The objective against a float64 NumPy reference, its invariants, and the head around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import each_device
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.objective import DatumHead
from diet_lightning.objective.loss import datum_cross_entropy, loss_floor


def reference(features, weight, index, smoothing, share=None):
    """Loss and both gradients from the definition: softmax, smoothed targets, mean or weighted sum over the batch."""
    batch, count = len(features), len(weight)
    share = np.full(batch, 1 / batch) if share is None else share
    logits = features @ weight.T
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    softmax = np.exp(log_softmax)
    target = np.full((batch, count), smoothing / count)
    target[np.arange(batch), index] += 1 - smoothing
    loss = -((target * log_softmax).sum(axis=1) * share).sum()
    gradient = (softmax - target) * share[:, None]
    return loss, gradient @ weight, gradient.T @ features


sizes = st.integers(1, 6)


chunks = st.one_of(st.none(), st.integers(1, 12))
reductions = st.sampled_from(["mean", "sum", "none"])


@each_device
@settings(deadline=None)  # the first call on a GPU loads its libraries
@given(sizes, st.integers(2, 9), sizes, st.floats(0, 0.99), chunks, reductions, st.booleans(), st.integers(0, 1000))
def test_loss_and_gradients_equal_numpy_in_float64(
    device, batch, count, dim, smoothing, chunk, reduction, unit_rows, seed
):
    rng = np.random.default_rng(seed)
    features, weight = rng.normal(size=(batch, dim)), rng.normal(size=(count, dim))
    index = rng.integers(0, count, size=batch)  # may repeat
    shares = {"mean": np.full(batch, 1 / batch), "sum": np.ones(batch), "none": rng.normal(size=batch)}[reduction]
    f, w = (torch.tensor(array, requires_grad=True, device=device) for array in (features, weight))
    index_there, shares_there = torch.tensor(index, device=device), torch.tensor(shares, device=device)
    loss = datum_cross_entropy(f, w, index_there, smoothing, reduction, unit_rows, chunk)
    assert loss.shape == ((batch,) if reduction == "none" else ())
    (loss * shares_there if reduction == "none" else loss).sum().backward()
    value = (loss.detach() * shares_there).sum() if reduction == "none" else loss.detach()
    norm = np.linalg.norm(weight, axis=1, keepdims=True) if unit_rows else 1.0
    expected, by_features, by_rows = reference(features, weight / norm, index, smoothing, shares)
    if unit_rows:  # the chain rule through w / |w|
        rows = weight / norm
        by_rows = (by_rows - rows * (rows * by_rows).sum(axis=1, keepdims=True)) / norm
    for ours, theirs in zip((value, f.grad, w.grad), (expected, by_features, by_rows), strict=True):
        np.testing.assert_allclose(ours.cpu().numpy(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit_rows", [False, True])
def test_chunked_gradients_pass_gradcheck(unit_rows):
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 3), (11, 3))]
    index = torch.tensor([0, 10, 10, 4])

    def loss(features, weight):
        return datum_cross_entropy(features, weight, index, 0.6, "none", unit_rows, 4)

    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("scale", [1e3, 1e18])
def test_extreme_logits_do_not_overflow(scale, chunk):
    features = (torch.randn(4, 8) * scale).requires_grad_()
    weight = torch.randn(23, 8, requires_grad=True)
    loss = datum_cross_entropy(features, weight, torch.tensor([0, 5, 22, 22]), chunk_size=chunk)
    loss.backward()
    exact = reference(features.detach().double().numpy(), weight.detach().double().numpy(), [0, 5, 22, 22], 0.8)
    assert loss.item() == pytest.approx(exact[0], rel=1e-5)
    np.testing.assert_allclose(features.grad.numpy(), exact[1], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(weight.grad).all()


@each_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss_scale", [1.0, 2.0**16])
def test_16_bit_products_are_within_their_rounding(monkeypatch, dtype, loss_scale, device):
    # as on a CPU that multiplies 16-bit numbers by itself; elsewhere the products are float32 ones
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    torch.manual_seed(0)
    features, weight, index = torch.randn(32, 64), torch.randn(3000, 64) / 8, torch.randint(3000, (32,))
    exact = reference(features.double().numpy(), weight.double().numpy(), index.numpy(), 0.8)
    errors = {}
    for chunk in (None, 700):
        f, w = (each.to(device, copy=True).requires_grad_() for each in (features, weight))
        with torch.autocast(device, dtype=dtype):
            loss = datum_cross_entropy(f, w, index.to(device), chunk_size=chunk)
        assert loss.dtype == torch.float32
        (loss * loss_scale).backward()
        found = (loss.detach(), f.grad / loss_scale, w.grad / loss_scale)
        errors[chunk] = [
            np.abs(ours.double().cpu().numpy() - theirs).max() / np.abs(theirs).max()
            for ours, theirs in zip(found, exact, strict=True)
        ]
    rounding = torch.finfo(dtype).eps
    assert all(error < 4 * rounding for error in errors[700])
    # no worse than the plain way, up to chance
    assert all(ours <= 1.5 * plain + rounding / 4 for ours, plain in zip(errors[700], errors[None], strict=True))


def test_a_cpu_that_emulates_16_bits_multiplies_in_float32(monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    features, weight, index = torch.randn(8, 16), torch.randn(50, 16), torch.arange(8)
    exact = datum_cross_entropy(features, weight, index)
    for chunk in (None, 20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert datum_cross_entropy(features, weight, index, chunk_size=chunk).item() == pytest.approx(
                exact.item(), rel=1e-6
            )


@each_device
@pytest.mark.parametrize("chunk", [None, 4])
def test_compiles_into_one_graph(chunk, device):
    compiled = torch.compile(datum_cross_entropy, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (compiled, datum_cross_entropy):
        torch.manual_seed(0)
        features, weight = (torch.randn(count, 4, device=device, requires_grad=True) for count in (3, 9))
        function(features, weight, torch.tensor([0, 3, 3], device=device), chunk_size=chunk).backward()
        gradients.append((features.grad, weight.grad))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_chunks_hold_no_more_than_a_chunk_of_logits():
    count, batch, dim = 40_000, 64, 8
    features, weight = torch.randn(batch, dim, requires_grad=True), torch.randn(count, dim, requires_grad=True)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            largest.extend(o.numel() for o in torch.utils._pytree.tree_leaves(out) if isinstance(o, torch.Tensor))
            return out

    with Watch():
        datum_cross_entropy(features, weight, torch.arange(batch), chunk_size=1000).backward()
    assert max(largest) == max(count * dim, 1000 * batch)  # W's gradient, or a chunk


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


def test_other_arguments_are_refused_by_name_and_value():
    features, weight, index = torch.zeros(2, 3), torch.zeros(5, 3), torch.tensor([0, 4])
    for options, message in (
        ({"reduction": "max"}, "`reduction` to be one of .* but got 'max'"),
        ({"chunk_size": 0}, "`chunk_size` to be at least 1, but got 0"),
        ({"index": index[:1]}, r"`index` to have shape \(2,\).* but got \(1,\)"),
        ({"features": features.double()}, r"`features` to be torch.float32.* but got torch.float64"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            datum_cross_entropy(**{"features": features, "weight": weight, "index": index, **options})


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
