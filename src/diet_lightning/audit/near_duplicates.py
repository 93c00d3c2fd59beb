"""Near-duplicates: samples that are significantly closer to each other than their neighbourhood explains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2, false_discovery_control
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from diet_lightning.evaluation.neighbours import CHUNK

NEIGHBOURS = 40  # from which the local dimension is estimated
MOST_CERTAIN = 1e6  # upper limit of the prior's weight, in neighbours
VIEW_SCALE = 0.9  # side of a crop as a fraction of the image's
RIDGE = 0.01  # fraction of the mean variance that is added to each variance before whitening
THUMBNAIL = 8  # pixels a side
TINY = np.finfo(np.float64).tiny
MAX_EMBEDDING_P_VALUE = 0.5  # the p-value of the pixels is considered below this p-value of the embeddings


def weak_augmentations(inputs: Tensor) -> Iterator[Tensor]:
    """Weak augmentations of stored images ``(B, C, H, W)``: themselves, mirrored, and nine crops of 0.9 of their side.

    Yields:
        Batches like `inputs`; only `inputs` itself if they are not images.
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


def thumbnails(images: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` reduced by the mean to at most `THUMBNAIL` pixels a side, flattened to ``(B, C * h * w)``."""
    return F.adaptive_avg_pool2d(images, (min(THUMBNAIL, images.shape[2]), min(THUMBNAIL, images.shape[3]))).flatten(1)


class Whitening:
    """Centres embeddings ``(N, K)`` and scales every direction to about the same variance, so that none dominates."""

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
    """The nearest other samples of each, at the smallest distance over its `weak_augmentations`.

    Attributes:
        distance: Between unit vectors, ascending, shape ``(N, k)``, in [0, 2].
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
        views: Batches of indices ``(B,)`` with the embeddings of these samples' augmentations, ``(B, K)`` each.
        k: Number of neighbours; at most all other samples.
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


def closeness_p_values(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""P-values of the distances of neighbours under the null hypothesis that samples are distributed uniformly.

    In m dimensions one of k neighbours is within a fraction r of the largest distance with probability :math:`r^m`, and the
    nearest of them with probability :math:`1 - (1 - r^m)^{k-1}`. The dimension m is estimated from a sample's neighbourhood
    (Levina and Bickel, 2004). The distances of the closest two neighbours, which may be duplicates, are treated as censored
    at the third's. The estimate is shrunk towards that of the whole data set (empirical Bayes), and :math:`r^m` is averaged
    over the posterior of m.

    Args:
        distance: Distances of each sample's neighbours, ascending, shape ``(N, k)``, k at least 4.

    Returns:
        P-values, shape ``(N, k - 1)``, for all but the farthest neighbour.
    """
    k = distance.shape[1]
    logs = np.log(np.maximum(distance, TINY))
    far = logs[:, -1:] - logs  # -log r: exponential, mean 1/m
    inner = far[:, 2:-1]
    total = inner.sum(axis=1) + 2.0 * inner[:, 0]  # the closest two are censored at the distance of the third
    share = inner.shape[1]
    mean = max(float(np.mean(total / share)), TINY)
    # variance of 1/m over the data set beyond that of its estimates: an inverse gamma distribution
    variance = float(np.mean((total / share) ** 2)) / (1.0 + 1.0 / share) - mean**2
    shape = 2.0 + mean**2 / max(variance, mean**2 / MOST_CERTAIN)
    # given the neighbourhood, -log r has a Pareto distribution; the less is known of m, the heavier its tail
    rate = ((shape - 1.0) * mean + total)[:, None]
    # clipped, as it is 1 at the largest distance
    within = np.minimum((1.0 + far[:, :-1] / rate) ** -(shape + share), 1.0 - 1e-12)
    p_values: NDArray[np.float64] = -np.expm1((k - 1) * np.log1p(-within))
    return p_values


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicate pairs, sorted by p-value.

    Attributes:
        pairs: Indices, the smaller first, shape ``(P, 2)``.
        similarity: Cosine of the whitened embeddings, the largest over the weak augmentations, shape ``(P,)``.
        p_value: Probability that two samples which are not duplicates are so close, ascending, shape ``(P,)``.
        group: Number of the group of each sample, -1 outside of all groups, shape ``(N,)``.
    """

    pairs: NDArray[np.int64]
    similarity: NDArray[np.float64]
    p_value: NDArray[np.float64]
    group: NDArray[np.int64]


def near_duplicates(found: Neighbourhoods, fdr: float = 0.1, pixels: Neighbourhoods | None = None) -> Duplicates:
    """Finds pairs whose distance is significantly small, at a bounded false discovery rate.

    The threshold is Benjamini and Hochberg's (1995) over the samples' closest neighbours. For images the p-values of
    the `thumbnails` are combined with those of the embeddings by Fisher's method, as if they were independent. A pair whose
    p-value from the embeddings alone is 0.5 or more is not reported, whatever its pixels.

    Args:
        found: Neighbourhoods of the embeddings, of at least five neighbours; with fewer no pair is reported.
        fdr: False discovery rate: the expected share of false pairs among the reported ones, if the null model holds.
        pixels: Neighbourhoods of the thumbnails; None if the inputs are not images.
    """
    count, k = found.distance.shape
    none = np.zeros(0)
    if k < 5:
        return Duplicates(np.zeros((0, 2), dtype=np.int64), none, none, np.full(count, -1))
    p_values, index = closeness_p_values(found.distance), found.index[:, : k - 1]
    if pixels is not None:
        p_values = np.where(p_values < MAX_EMBEDDING_P_VALUE, _combined(p_values, index, pixels), 1.0)
    closest = p_values.min(axis=1)
    threshold = closest[false_discovery_control(closest) <= fdr].max(initial=-1.0)
    rows, columns = np.nonzero(p_values <= threshold)
    ends = np.sort(np.stack([rows, index[rows, columns]], axis=1), axis=1)
    p_value = p_values[rows, columns]
    order = np.lexsort((ends[:, 1], ends[:, 0], p_value))
    # the first of both directions has the smaller p-value
    chosen = order[np.sort(np.unique(ends[order], axis=0, return_index=True)[1])]
    pairs = ends[chosen]
    similarity = 1.0 - found.distance[rows, columns][chosen] ** 2 / 2.0
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    group = np.full(count, -1, dtype=np.int64)
    members = np.unique(pairs)
    group[members] = np.unique(component[members], return_inverse=True)[1]
    return Duplicates(pairs, similarity, p_value[chosen], group)


def _combined(p_values: NDArray[np.float64], index: NDArray[np.int64], pixels: Neighbourhoods) -> NDArray[np.float64]:
    """Fisher's combination with the p-value of the same neighbour by pixels, which is 1 if it is not among the nearest there."""
    logs = np.log(np.maximum(closeness_p_values(pixels.distance), TINY))
    rows = np.arange(len(index))[:, None]
    others = pixels.index[:, : logs.shape[1]]
    places = (np.broadcast_to(rows, others.shape).ravel(), others.ravel())
    by_pair = csr_matrix((logs.ravel(), places), shape=(len(index), len(index)))
    theirs = by_pair[rows, index].toarray()  # 0, the logarithm of 1, for missing pairs
    both: NDArray[np.float64] = chi2.sf(-2.0 * (np.log(np.maximum(p_values, TINY)) + theirs), df=4)
    return both
