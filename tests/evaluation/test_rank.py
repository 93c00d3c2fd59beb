"""Ranks of embeddings against their definitions in NumPy, and the callback that logs them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TinyNet, image_data, images
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, DIETModule, FeatureRank
from diet_lightning.evaluation.probes import extract_features
from diet_lightning.evaluation.rank import effective_rank, rankme, singular_values


def numpy_rankme(features: np.ndarray) -> float:
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = values / np.abs(values).sum() + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def numpy_effective(features: np.ndarray) -> float:
    values = np.linalg.eigvalsh(np.cov(features.astype(np.float64), rowvar=False, bias=True))
    share = values[values > 1e-12 * values.max()]
    share = share / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def of(features: np.ndarray) -> tuple[float, float]:
    rows = torch.from_numpy(features).double()
    outer = rows.T @ rows
    return rankme(singular_values(outer, len(rows))), effective_rank(outer, rows.sum(0), len(rows))


@given(st.integers(2, 40), st.integers(2, 12), st.floats(0.0, 5.0), st.integers(0, 2**31))
def test_ranks_are_their_definitions(count, dim, offset, seed):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, dim)) * generator.uniform(0.1, 3.0, dim) + offset
    found = of(features)
    assert found[0] == pytest.approx(numpy_rankme(features), rel=1e-5)
    assert found[1] == pytest.approx(numpy_effective(features), rel=1e-5)
    assert 1.0 <= found[1] <= dim + 1e-9


def test_collapsed_embeddings_have_rank_one():
    assert of(np.tile(np.random.default_rng(0).normal(size=(1, 8)), (20, 1))) == pytest.approx((1.0, 1.0), abs=1e-3)
    assert of(np.zeros((5, 4))) == (1.0, 1.0)


def test_callback_measures_the_clean_validation_samples(make_trainer):
    module, data = DIETModule(TinyNet()), image_data()
    trainer = make_trainer(max_epochs=1, callbacks=[FeatureRank()])
    trainer.fit(module, data)
    features = extract_features(module.backbone, (batch.input for batch in data.eval_batches("val")))
    assert float(trainer.callback_metrics["val/rankme"]) == pytest.approx(numpy_rankme(features), rel=1e-4)
    assert float(trainer.callback_metrics["val/effective_rank"]) == pytest.approx(numpy_effective(features), rel=1e-3)


def test_without_a_validation_split_the_training_samples_are_measured(make_trainer):
    data = DIETDataModule.from_datasets(TensorDataset(images(40)), batch_size=16, strength=0)
    module = DIETModule(TinyNet(dropout=0.0), lr=0.0, weight_decay=0.0)  # so that the epoch's embeddings are the end's
    trainer = make_trainer(max_epochs=1, callbacks=[FeatureRank(warn_below=1.0)])
    trainer.fit(module, data)
    features = extract_features(module.backbone, (batch.input for batch in data.eval_batches("train")))
    assert float(trainer.callback_metrics["train/rankme"]) == pytest.approx(numpy_rankme(features), rel=1e-4)
    assert "val/rankme" not in trainer.callback_metrics


def test_collapse_is_told_with_the_values(make_trainer):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.row = torch.nn.Parameter(torch.ones(6))

        def forward(self, x):
            return self.row.expand(len(x), 6)

    trainer = make_trainer(max_epochs=1, callbacks=[FeatureRank()])
    with pytest.warns(UserWarning, match=r"collapsed: RankMe is 1.00 \(1 is one direction for all, at most 6"):
        trainer.fit(DIETModule(Constant()), image_data())


def test_healthy_embeddings_do_not_warn(make_trainer):
    make_trainer(max_epochs=2, callbacks=[FeatureRank()]).fit(DIETModule("resnet8"), image_data())


def test_repeats_of_a_distributed_sampler_do_not_count():
    callback = FeatureRank()
    features = torch.randn(6, 3, dtype=torch.float64)
    for rank, rows in enumerate(([0, 2, 4], [1, 3, 5])):
        index = torch.tensor(rows)
        callback._add(features[index], (index % 2 == rank).float())
    callback._add(features[[0]], torch.zeros(1))  # sample 0 again, on the rank that it is not from
    outer, total, count = callback._sums
    torch.testing.assert_close(outer, features.T @ features)
    torch.testing.assert_close(total, features.sum(0))
    assert int(count) == 6
