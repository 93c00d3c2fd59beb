"""Near-duplicates, against NumPy, scikit-learn and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import combine_pvalues, kstest

from diet_lightning.audit import near_duplicates as duplicates
from diet_lightning.audit.near_duplicates import (
    Neighbourhoods,
    Whitening,
    closeness_p_values,
    near_duplicates,
    neighbourhoods,
    thumbnails,
    weak_augmentations,
)


def test_views_are_the_image_its_mirror_and_crops_of_it():
    images = torch.arange(100, dtype=torch.uint8).reshape(1, 1, 10, 10)
    views = list(weak_augmentations(images))
    assert torch.equal(views[0], images)
    assert torch.equal(views[1], images.flip(3))
    assert len(views) == 2 + 4  # a crop of 9 of 10 pixels has two places each way
    assert all(view.shape == images.shape and view.dtype == torch.uint8 for view in views)
    # the crop at the lower right begins one pixel further, in both directions
    assert int(views[-1][0, 0, 0, 0]) == pytest.approx(11, abs=1)
    signals = torch.randn(3, 2, 50)
    assert [view.tolist() for view in weak_augmentations(signals)] == [signals.tolist()]


def test_neighbours_are_seen_through_any_view(monkeypatch):
    generator = np.random.default_rng(0)
    features = torch.from_numpy(generator.normal(size=(25, 5)))
    second = torch.from_numpy(generator.normal(size=(25, 5)))
    white = Whitening(features)
    every = np.maximum(*(white(each).numpy() @ white(features).numpy().T for each in (features, second)))
    np.fill_diagonal(every, -np.inf)
    monkeypatch.setattr(duplicates, "CHUNK", 75)
    batches = [(rows, [features[rows], second[rows]]) for rows in torch.arange(25).split(10)]
    found = neighbourhoods(features, batches, k=6)
    np.testing.assert_array_equal(found.index, np.argsort(-every, axis=1)[:, :6])
    np.testing.assert_allclose(found.distance, np.sqrt(2 - 2 * -np.sort(-every, axis=1)[:, :6]), atol=1e-7)


def test_whitened_embeddings_have_no_direction_in_common():
    features = torch.randn(500, 4, dtype=torch.float64) * torch.tensor([10.0, 3.0, 1.0, 1.0]) + 7.0
    white = (features - features.mean(0)) @ Whitening(features).matrix
    covariance = np.cov(white.numpy(), rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert 0.5 < np.diag(covariance).min() <= np.diag(covariance).max() <= 1.01


@pytest.mark.parametrize("dim", [3, 8])
def test_p_values_are_uniform_where_samples_are_spread_evenly(dim):
    # neighbourhoods of points that are spread evenly in a ball: shares of the farthest distance are u^(1/m)
    generator = np.random.default_rng(dim)
    distance = np.sort(generator.random((4000, 40)) ** (1.0 / dim), axis=1)
    p_value = closeness_p_values(distance)
    assert p_value.shape == (4000, 39)
    assert kstest(p_value[:, 0], "uniform").statistic < 0.05
    assert np.mean(p_value[:, 0] < 0.01) == pytest.approx(0.01, abs=0.005)


def test_p_values_hold_where_neighbourhoods_differ():
    # dimensions from 2 to 20 in one data set: one dimension for all would call every fourth thin neighbourhood a find
    generator = np.random.default_rng(0)
    dims = 1.0 / generator.gamma(4.0, 1 / 24.0, size=(20000, 1)).clip(0.05, 0.5)
    distance = np.sort(generator.random((20000, 40)) ** (1.0 / dims), axis=1)
    p_value = closeness_p_values(distance)[:, 0]
    for level in (0.001, 0.01, 0.1):  # it errs to the careful side
        assert 0.4 < np.mean(p_value < level) / level < 1.3


@given(st.integers(0, 2**31), st.floats(0.1, 10.0))
def test_p_values_do_not_depend_on_the_unit_of_distance(seed, unit):
    distance = np.sort(np.random.default_rng(seed).random((12, 8)), axis=1) + 0.01
    np.testing.assert_allclose(closeness_p_values(distance), closeness_p_values(unit * distance), rtol=1e-6)


def planted(seed: int, copies: int = 20, noise: float = 0.02) -> tuple[torch.Tensor, set[tuple[int, int]]]:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(800, 6, generator=generator)
    near = samples[:copies] + noise * torch.randn(copies, 6, generator=generator)
    return torch.cat([samples, near]), {(n, 800 + n) for n in range(copies)}


@pytest.mark.parametrize("seed", range(3))
def test_planted_copies_are_found_and_little_else(seed):
    features, pairs = planted(seed)
    found = near_duplicates(neighbourhoods(features, [(torch.arange(820), [features])]), fdr=0.05)
    got = {tuple(pair) for pair in found.pairs.tolist()}
    assert len(got & pairs) / len(pairs) >= 0.9
    assert len(got & pairs) / len(got) >= 0.9
    assert np.all(np.diff(found.p_value) >= 0)
    for number, (first, second) in enumerate(found.pairs.tolist()):
        assert found.group[first] == found.group[second] >= 0
        white = Whitening(features)(features)
        assert found.similarity[number] == pytest.approx(float(white[first] @ white[second]), abs=1e-6)


def test_nothing_is_found_where_nothing_is_planted():
    features, _ = planted(3, copies=0)
    found = near_duplicates(neighbourhoods(features, [(torch.arange(800), [features])]), fdr=0.05)
    assert len(found.pairs) <= 2  # a false pair may pass; none is a duplicate
    assert set(found.group.tolist()) <= {-1, 0, 1}


def test_exact_copies_form_one_group():
    features, _ = planted(4, copies=0)
    features = torch.cat([features, features[:1], features[:1]])
    found = near_duplicates(neighbourhoods(features, [(torch.arange(802), [features])]))
    assert {(0, 800), (0, 801), (800, 801)} <= {tuple(pair) for pair in found.pairs.tolist()}
    assert len({int(found.group[n]) for n in (0, 800, 801)}) == 1


def test_threshold_is_benjamini_and_hochbergs():
    generator = np.random.default_rng(0)
    distance = np.sort(generator.random((300, 12)) ** 0.2, axis=1)
    distance[:9, 0] = distance[:9, -1] * np.logspace(-3, -0.5, 9)
    index = (np.arange(300)[:, None] + 1 + np.arange(12)) % 300
    p_value = closeness_p_values(distance)
    rank = sorted(p_value[:, 0].tolist())
    passed = [p for n, p in enumerate(rank, 1) if p <= 0.1 * n / 300]
    found = near_duplicates(Neighbourhoods(distance, index), fdr=0.1)
    assert passed
    assert found.p_value.max() <= max(passed)
    assert {int(n) for n in np.flatnonzero(p_value[:, 0] <= max(passed))} <= set(found.pairs.flatten().tolist())


def test_a_handful_of_samples_has_no_neighbourhood_to_judge_by():
    features = torch.randn(4, 3)
    found = near_duplicates(neighbourhoods(features, [(torch.arange(4), [features])]))
    assert len(found.pairs) == 0
    assert found.group.tolist() == [-1] * 4


def spread_evenly(seed: int, count: int = 300) -> Neighbourhoods:
    generator = np.random.default_rng(seed)
    distance = np.sort(generator.random((count, 12)) ** 0.2, axis=1)
    index = np.stack([generator.permutation(count - 1)[:12] for _ in range(count)])
    return Neighbourhoods(distance, index + (index >= np.arange(count)[:, None]))


def make_nearest(found: Neighbourhoods, neighbours: np.ndarray) -> None:
    """Gives the first samples these nearest neighbours; each lies in a neighbourhood once."""
    for row, nearest in zip(found.index, neighbours.tolist(), strict=False):
        row[row == nearest] = row[0]
        row[0] = nearest


def p_values(found: Neighbourhoods) -> dict[tuple[int, int], float]:
    p_value = closeness_p_values(found.distance)
    return {(n, int(found.index[n, place])): float(p_value[n, place]) for n, place in np.ndindex(*p_value.shape)}


def test_embeddings_and_pixels_are_combined_as_scipy_combines_them():
    embedded, pixels = spread_evenly(0), spread_evenly(1)
    embedded.distance[:40, 0] *= np.logspace(-2, 0, 40)
    make_nearest(pixels, embedded.index[:40, 0])
    pixels.distance[:40, 0] *= np.logspace(0, -2, 40)
    found = near_duplicates(embedded, 0.5, pixels)
    theirs = p_values(pixels)
    expected: dict[tuple[int, ...], float] = {}
    for ends, p_value in p_values(embedded).items():
        if p_value < 0.5:
            both = combine_pvalues([p_value, theirs.get(ends, 1.0)], "fisher").pvalue
            expected[tuple(sorted(ends))] = min(both, expected.get(tuple(sorted(ends)), 1.0))
    assert len(found.pairs) > 10
    got = dict(zip(map(tuple, found.pairs.tolist()), found.p_value.tolist(), strict=True))
    assert got == pytest.approx({pair: expected[pair] for pair in got}, rel=1e-9)
    assert all(p_value >= found.p_value.max() for pair, p_value in expected.items() if pair not in got)


def test_pixels_alone_make_no_pair():
    embedded, pixels = spread_evenly(2), spread_evenly(3)
    # by their embeddings the first five are close, the other four neighbours among others
    make_nearest(pixels, embedded.index[np.arange(9), [0] * 5 + [9] * 4])
    embedded.distance[:5, 0] *= 0.2
    pixels.distance[:9, 0] *= 1e-6  # and all nine are the same picture twice
    alike = [tuple(sorted((n, int(pixels.index[n, 0])))) for n in range(9)]
    assert {tuple(pair) for pair in near_duplicates(pixels).pairs.tolist()} == set(alike)
    assert {tuple(pair) for pair in near_duplicates(embedded, pixels=pixels).pairs.tolist()} == set(alike[:5])


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 8, 8), (2, 3, 5, 20)])
def test_thumbnails_are_means_of_their_pixels(shape):
    images = torch.randn(shape, dtype=torch.float64)
    ours = thumbnails(images).numpy()
    h, w = min(8, shape[2]), min(8, shape[3])
    for row in range(h):
        for column in range(w):
            top, left = row * shape[2] // h, column * shape[3] // w
            low, right = -(-(row + 1) * shape[2] // h), -(-(column + 1) * shape[3] // w)
            mean = images.numpy()[:, :, top:low, left:right].mean(axis=(2, 3))
            np.testing.assert_allclose(ours.reshape(2, shape[1], h, w)[:, :, row, column], mean, rtol=1e-12)
