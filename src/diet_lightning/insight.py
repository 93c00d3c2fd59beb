"""What the N-way classifier knows about a data set: hard samples, near-duplicates and likely label errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.heads import DatumHead
from diet_lightning.losses import datum_cross_entropy
from diet_lightning.neighbours import CHUNK, knn_probabilities, nearest_neighbours

NEIGHBOURS = 40  # that say how far apart samples of a neighbourhood lie
MOST_CERTAIN = 1e6  # neighbours' worth, where all neighbourhoods of a data set look alike
VIEW_SCALE = 0.9  # side of a cropped view, of the image's
RIDGE = 0.01  # of the mean variance, added to each direction's before it is divided by


# -- loss and confusions -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def datum_losses(head: DatumHead, features: Tensor, index: Tensor) -> Tensor:
    """DIET's loss of each sample (Algorithm 1), exact at any N.

    Args:
        head: The trained head.
        features: Embeddings, shape ``(B, K)``.
        index: Sample indices, shape ``(B,)``, int64.

    Returns:
        Nats, shape ``(B,)``.
    """
    return datum_cross_entropy(
        head.scaled(features), head.weight, index, head.label_smoothing, "none", head.normalize_rows
    )


@torch.inference_mode()
def most_confused(head: DatumHead, features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The sample, other than itself, that the classifier takes each sample for most.

    Args:
        head: The trained head.
        features: Embeddings, shape ``(B, K)``.
        index: Sample indices, shape ``(B,)``, int64.

    Returns:
        Its index, int64, and its logit less the sample's own, both ``(B,)``: from 0 on up the two are taken for each other.
    """
    weight = F.normalize(head.weight, dim=1) if head.normalize_rows else head.weight
    rows = head.scaled(features)
    step = max(1, CHUNK // len(weight))
    found, excess = [], []
    for part, own in zip(torch.split(rows, step), torch.split(index, step), strict=True):
        logits = part @ weight.T
        mine = logits.gather(1, own[:, None])
        value, other = logits.scatter(1, own[:, None], -torch.inf).max(dim=1)
        found.append(other)
        excess.append(value - mine[:, 0])
    return torch.cat(found), torch.cat(excess)


# -- near-duplicates ---------------------------------------------------------------------------------------------------


def mild_views(inputs: Tensor) -> Iterator[Tensor]:
    """What a near-duplicate of each image may look like: itself, mirrored, and nine crops of nine tenths of its side.

    Args:
        inputs: Stored inputs; images have shape ``(B, C, H, W)``.

    Yields:
        Batches like `inputs`; only `inputs` itself where they are no images.
    """
    yield inputs
    if inputs.ndim != 4:
        return
    yield inputs.flip(3)
    height, width = inputs.shape[2:]
    crop = (min(height - 1, round(VIEW_SCALE * height)), min(width - 1, round(VIEW_SCALE * width)))
    if min(crop) < 1:
        return
    for top in sorted({0, (height - crop[0]) // 2, height - crop[0]}):
        for left in sorted({0, (width - crop[1]) // 2, width - crop[1]}):
            yield tv.resized_crop(inputs, top, left, *crop, size=[height, width], antialias=True)


class Whitening:
    """Centres embeddings and gives every direction about the same variance, so that no shared one decides on similarity.

    Args:
        features: Embeddings, shape ``(N, K)``.
    """

    def __init__(self, features: Tensor) -> None:
        self.mean = features.mean(dim=0)
        centred = (features - self.mean).double()
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(features))
        variances = variances.clamp(min=0.0)
        scales = (variances + RIDGE * variances.mean() + torch.finfo(torch.float32).tiny).rsqrt()
        self.matrix = (directions * scales).to(features.dtype)

    def __call__(self, features: Tensor) -> Tensor:
        """Unit vectors, shape ``(B, K)``."""
        return F.normalize((features - self.mean) @ self.matrix, dim=1)


@dataclass(frozen=True)
class Neighbourhoods:
    """Each sample's nearest others, where it may be seen through any of its `mild_views`.

    Attributes:
        distance: Between unit vectors, rising, shape ``(N, k)``, in [0, 2].
        index: Of the others, shape ``(N, k)``.
    """

    distance: NDArray[np.float64]
    index: NDArray[np.int64]


@torch.inference_mode()
def neighbourhoods(
    features: Tensor, views: Iterable[tuple[Tensor, Iterable[Tensor]]], k: int = NEIGHBOURS
) -> Neighbourhoods:
    """Finds each sample's neighbours, exactly, a chunk of similarities at a time.

    Args:
        features: Embeddings of the samples, shape ``(N, K)``.
        views: Batches of indices ``(B,)`` with the embeddings of these samples' views, ``(B, K)`` each.
        k: Neighbours; fewer in a data set with fewer.

    Returns:
        The neighbourhoods.
    """
    whiten = Whitening(features)
    bank = whiten(features)
    k = min(k, len(bank) - 1)
    similarity = torch.full((len(bank), k), -torch.inf, dtype=bank.dtype)
    index = torch.zeros(len(bank), k, dtype=torch.int64)
    step = max(1, CHUNK // len(bank))
    for rows, embedded in views:
        every = [whiten(each) for each in embedded]
        for start in range(0, len(rows), step):
            own = rows[start : start + step]
            best = torch.stack([each[start : start + step] for each in every], 1).flatten(0, 1) @ bank.T
            best = best.view(len(own), len(every), -1).amax(1)
            best.scatter_(1, own[:, None], -torch.inf)
            similarity[own], index[own] = (part.cpu() for part in best.topk(k, dim=1))
    distance = (2.0 - 2.0 * similarity.double()).clamp(min=0.0).sqrt()
    return Neighbourhoods(distance.numpy(), index.numpy())


def chance_of_closeness(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""How likely neighbours lie as close as they do, if samples were spread evenly around each other.

    In m dimensions one of k neighbours lies within a share r of the distance of the farthest with probability
    :math:`r^m`, the nearest of them with :math:`1 - (1 - r^m)^{k-1}`. What a sample's neighbourhood says of m (Levina and
    Bickel, 2004; of the closest two, which may be duplicates, only that they are closer counts) is drawn towards the whole
    data set, as far as neighbourhoods there are alike (empirical Bayes), and :math:`r^m` is averaged over what m may be.

    Args:
        distance: Of each sample's neighbours, rising, shape ``(N, k)``, k at least 4.

    Returns:
        Shape ``(N, k - 1)``, for all but the farthest neighbour.
    """
    k = distance.shape[1]
    tiny = np.finfo(np.float64).tiny
    far = -(
        np.log(np.maximum(distance, tiny)) - np.log(np.maximum(distance[:, -1:], tiny))
    )  # -log r: exponential, mean 1/m
    inner = far[:, 2:-1]
    total = inner.sum(axis=1) + 2.0 * inner[:, 0]  # the closest two are at least as far out as the third
    share = inner.shape[1]
    mean = max(float(np.mean(total / share)), tiny)
    # how 1/m varies over the data set beyond what so few neighbours say of it: an inverse gamma distribution
    variance = float(np.mean((total / share) ** 2)) / (1.0 + 1.0 / share) - mean**2
    shape = 2.0 + mean**2 / max(variance, mean**2 / MOST_CERTAIN)
    # and given the neighbourhood, -log r is Pareto: its tail is heavier the less is known of m
    rate = ((shape - 1.0) * mean + total)[:, None]
    within = np.minimum((1.0 + far[:, :-1] / rate) ** -(shape + share), 1.0 - 1e-12)  # as far as the farthest, it is 1
    chance: NDArray[np.float64] = -np.expm1((k - 1) * np.log1p(-within))
    return chance


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicate pairs, the surest first.

    Attributes:
        pairs: Indices, the smaller first, shape ``(P, 2)``.
        similarity: Cosine of the whitened embeddings, best of the views, shape ``(P,)``.
        chance: Of lying so close without being a duplicate, shape ``(P,)``.
        group: For each sample the number of its group, -1 for none, shape ``(N,)``.
    """

    pairs: NDArray[np.int64]
    similarity: NDArray[np.float64]
    chance: NDArray[np.float64]
    group: NDArray[np.int64]


def near_duplicates(found: Neighbourhoods, false_discoveries: float = 0.2) -> Duplicates:
    """Pairs that lie closer than chance allows, at a bounded share of false ones.

    The threshold is Benjamini and Hochberg's (1995) over the samples' nearest neighbours.

    Args:
        found: The neighbourhoods, of at least four neighbours; with fewer nothing is found.
        false_discoveries: Expected share of false pairs among the found ones, as far as the model of chance holds.

    Returns:
        The pairs and their groups.
    """
    count, k = found.distance.shape
    none = np.zeros(0)
    if k < 5:
        return Duplicates(np.zeros((0, 2), dtype=np.int64), none, none, np.full(count, -1))
    chance = chance_of_closeness(found.distance)
    nearest = np.sort(chance[:, 0])
    passed = np.flatnonzero(nearest <= false_discoveries * np.arange(1, count + 1) / count)
    threshold = nearest[passed[-1]] if len(passed) else -1.0
    first, place = np.nonzero(chance <= threshold)
    second = found.index[first, place]
    order = np.lexsort((chance[first, place], np.maximum(first, second), np.minimum(first, second)))
    ends = np.sort(np.stack([first, second], axis=1), axis=1)[order]
    pairs, at = np.unique(ends, axis=0, return_index=True)  # of both directions the surer
    rows, columns = first[order][at], place[order][at]
    similarity, chances = 1.0 - found.distance[rows, columns] ** 2 / 2.0, chance[rows, columns]
    surest = np.argsort(chances, kind="stable")
    pairs = pairs[surest]
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    group = np.full(count, -1, dtype=np.int64)
    members = np.unique(pairs)
    group[members] = np.unique(component[members], return_inverse=True)[1]
    return Duplicates(pairs, similarity[surest], chances[surest], group)


# -- label errors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelDoubts:
    """What a sample's neighbours say of its label.

    Attributes:
        suggested: The label they vote for, shape ``(N,)``, -1 where the sample has none.
        doubt: Their share for that less their share for the sample's own, shape ``(N,)``, in [-1, 1]; above 0 they disagree.
    """

    suggested: NDArray[np.int64]
    doubt: NDArray[np.float64]


@torch.inference_mode()
def label_doubts(features: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.07) -> LabelDoubts:
    """Weighs each label against those of the sample's nearest neighbours, itself left out.

    Args:
        features: Embeddings, shape ``(N, K)``.
        labels: Shape ``(N,)``, int64, -1 where there is none; such samples neither vote nor are judged.
        k: Neighbours; fewer where fewer samples have labels.
        temperature: Of their weights (see `knn_probabilities`).

    Returns:
        The doubts.
    """
    known = torch.nonzero(labels != NO_LABEL)[:, 0]
    suggested = np.full(len(labels), NO_LABEL, dtype=np.int64)
    doubt = np.zeros(len(labels))
    if len(known) > 1:
        rows, given = features[known], labels[known]
        positions = torch.arange(len(known), device=rows.device)
        similarity, index = nearest_neighbours(rows, rows, min(k, len(known) - 1), own=positions)
        shares = knn_probabilities(similarity, given[index], int(given.max()) + 1, temperature)
        own = shares.gather(1, given[:, None])[:, 0]
        best, other = shares.scatter(1, given[:, None], -1.0).max(dim=1)
        suggested[known.cpu()] = torch.where(best > own, other, given).cpu().numpy()
        doubt[known.cpu()] = (best - own).double().cpu().numpy()
    return LabelDoubts(suggested, doubt)
