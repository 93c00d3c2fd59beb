"""Nearest neighbours against scikit-learn, and OnlineKNN against neighbours looked up by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TinyNet, image_data, images
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, DIETModule, OnlineKNN
from diet_lightning.errors import ConfigurationError
from diet_lightning.evaluation import neighbours
from diet_lightning.evaluation.neighbours import knn_probabilities, nearest_neighbours


@given(st.integers(1, 30), st.integers(6, 40), st.integers(1, 5), st.integers(1, 200), st.integers(0, 2**31))
def test_neighbours_are_scikit_learns_whatever_the_chunk(queries, count, k, chunk, seed):
    generator = np.random.default_rng(seed)
    bank, asked = generator.normal(size=(count, 5)), generator.normal(size=(queries, 5))
    distance, index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank).kneighbors(asked)
    before, neighbours.CHUNK = neighbours.CHUNK, chunk
    try:
        similarity, found = nearest_neighbours(torch.from_numpy(asked), torch.from_numpy(bank), k)
    finally:
        neighbours.CHUNK = before
    np.testing.assert_allclose(similarity.numpy(), 1.0 - distance, atol=1e-9)
    np.testing.assert_array_equal(found.numpy(), index)


def test_a_sample_is_not_its_own_neighbour():
    bank = torch.randn(9, 4, dtype=torch.float64)
    similarity, found = nearest_neighbours(bank, bank, 8, own=torch.arange(9))
    assert [sorted([n, *row]) for n, row in enumerate(found.tolist())] == [list(range(9))] * 9
    assert bool((similarity < 1.0).all())
    with pytest.raises(ConfigurationError, match=r"`k` to be in 1 … 8, .* but got 9"):
        nearest_neighbours(bank, bank, 9, own=torch.arange(9))


def test_votes_stay_finite_at_a_tiny_temperature():
    shares = knn_probabilities(torch.tensor([[0.9, 0.1]]), torch.tensor([[1, 0]]), 3, temperature=1e-4)
    assert shares.tolist() == [[0.0, 1.0, 0.0]]


class Outputs(Callback):
    """The embeddings of the last epoch's training steps, and of the validation."""

    def __init__(self):
        self.bank, self.queries = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.bank.append((outputs["features"], batch.label))

    def on_validation_epoch_start(self, trainer, pl_module):
        self.queries = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.queries.append((outputs["features"], batch.label))


@pytest.mark.parametrize("bank_size", [1000, 32])
def test_online_accuracy_is_that_of_the_last_training_embeddings(make_trainer, bank_size):
    outputs = Outputs()
    trainer = make_trainer(max_epochs=2, callbacks=[OnlineKNN(k=5, temperature=0.2, bank_size=bank_size), outputs])
    trainer.fit(DIETModule(TinyNet()), image_data())
    bank, labels = (torch.cat(part)[-bank_size:].numpy() for part in zip(*outputs.bank, strict=True))
    queries, truth = (torch.cat(part).numpy() for part in zip(*outputs.queries, strict=True))
    reference = KNeighborsClassifier(
        5, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1.0 - distance) / 0.2)
    ).fit(bank, labels)
    assert float(trainer.callback_metrics["val/knn_top1"]) == pytest.approx(reference.score(queries, truth), abs=1e-6)


def test_without_labels_it_is_off_or_refused(make_trainer):
    data = DIETDataModule.from_datasets(TensorDataset(images(40)), TensorDataset(images(20)), batch_size=16)
    trainer = make_trainer(max_epochs=1, callbacks=[OnlineKNN(enabled=None)])
    trainer.fit(DIETModule(TinyNet()), data)
    assert "val/knn_top1" not in trainer.callback_metrics
    with pytest.raises(ConfigurationError, match="Callback 'knn' is enabled, but the training data have no labels"):
        make_trainer(callbacks=[OnlineKNN()]).fit(DIETModule(TinyNet()), data)


def test_backbone_is_bitwise_the_same_beside_it(make_trainer):
    weights = []
    for callbacks in ([], [OnlineKNN()]):
        torch.manual_seed(0)
        module = DIETModule(TinyNet(), num_samples=48, input_shape=[3, 8, 8])
        make_trainer(callbacks=callbacks).fit(module, image_data())
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("options", [{"k": 0}, {"bank_size": 0}, {"temperature": 0.0}])
def test_arguments_outside_their_range_are_named(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"Expected argument `{name}` to be"):
        OnlineKNN(**options)
