"""What an audit is computed from, against NumPy, scikit-learn and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from diet_lightning.audit import sample_losses as sample_losses
from diet_lightning.audit.label_issues import label_issues
from diet_lightning.audit.sample_losses import datum_losses, most_confused
from diet_lightning.objective import DatumHead


def head(count: int, dim: int, **options) -> DatumHead:
    return DatumHead(count, dim, **options).double()


@pytest.mark.parametrize("options", [{}, {"normalize_features": True, "normalize_rows": True, "temperature": 0.1}])
def test_losses_and_confusions_are_those_of_the_whole_logits(options, monkeypatch):
    torch.manual_seed(0)
    ours = head(30, 6, **options)
    features, index = torch.randn(12, 6, dtype=torch.float64), torch.randint(0, 30, (12,))
    weight, rows = ours.weight.detach(), features
    if options:
        weight, rows = F.normalize(weight, dim=1), F.normalize(features, dim=1) / 0.1
    logits = rows @ weight.T
    expected = F.cross_entropy(logits, index, label_smoothing=0.8, reduction="none")
    torch.testing.assert_close(datum_losses(ours, features, index), expected)
    monkeypatch.setattr(sample_losses, "CHUNK", 90)  # three samples at a time
    other, excess = most_confused(ours, features, index)
    for n in range(12):
        ranked = [j for j in logits[n].argsort(descending=True).tolist() if j != int(index[n])]
        assert int(other[n]) == ranked[0]
        assert float(excess[n]) == pytest.approx(float(logits[n, ranked[0]] - logits[n, index[n]]))


def test_label_issues_are_the_votes_of_scikit_learns_other_neighbours():
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 4)), generator.integers(0, 3, 40)
    labels[[5, 9]] = -1
    found = label_issues(torch.from_numpy(features), torch.from_numpy(labels), k=6, temperature=0.5)
    for n in range(40):
        others = np.flatnonzero((labels >= 0) & (np.arange(40) != n))
        reference = KNeighborsClassifier(
            6, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1.0 - distance) / 0.5)
        ).fit(features[others], labels[others])
        shares = dict(zip(reference.classes_, reference.predict_proba(features[[n]])[0], strict=True))
        if labels[n] < 0:
            assert (found.suggested_label[n], found.score[n]) == (-1, 0.0)
            continue
        own = shares.pop(labels[n], 0.0)
        assert found.score[n] == pytest.approx(max(shares.values()) - own, abs=1e-6)
        assert found.suggested_label[n] == (max(shares, key=shares.get) if max(shares.values()) > own else labels[n])


def test_flipped_labels_of_clusters_score_highest():
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(5, 8, generator=generator)
    labels = torch.arange(300) % 5
    features = centres[labels] + torch.randn(300, 8, generator=generator)
    flipped = torch.arange(0, 60, 6)
    given_labels = labels.clone()
    given_labels[flipped] = (labels[flipped] + 1) % 5
    found = label_issues(features, given_labels)
    assert set(np.argsort(-found.score)[:10].tolist()) == set(flipped.tolist())
    np.testing.assert_array_equal(found.suggested_label[flipped], labels[flipped])
