"""DIET's objective: label-smoothed cross-entropy in which every sample is its own class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diet_lightning.errors import ConfigurationError, DataError


def check_label_smoothing(label_smoothing: float) -> float:
    """Returns `label_smoothing` as a float.

    Raises:
        ConfigurationError: If it is not in ``[0, 1)``.
    """
    if not 0.0 <= float(label_smoothing) < 1.0:
        raise ConfigurationError(
            f"Expected argument `label_smoothing` to be in [0, 1), but got {label_smoothing}: at 1 the target no "
            "longer depends on the sample; DIET's default is 0.8."
        )
    return float(label_smoothing)


def datum_cross_entropy(features: Tensor, weight: Tensor, index: Tensor, label_smoothing: float = 0.8) -> Tensor:
    r"""Mean label-smoothed cross-entropy of the logits ``features @ weight.T`` against the samples' own indices.

    With logits :math:`z = W f`, target :math:`n` and smoothing :math:`\varepsilon` over :math:`N` classes (DIET,
    Algorithm 1):

    .. math:: \ell = \operatorname{logsumexp}(z) - (1 - \varepsilon) z_n - \frac{\varepsilon}{N} \sum_j z_j

    Args:
        features: Embeddings, shape ``(B, K)``, floating point.
        weight: One row per training sample, shape ``(N, K)``.
        index: Index of each sample in the training set, shape ``(B,)``, int64, in ``[0, N)``.
        label_smoothing: Share of the target that is spread evenly over all N classes, in ``[0, 1)``.

    Returns:
        The loss, a scalar; float32 under autocast.

    Raises:
        ConfigurationError: If `label_smoothing` is not in ``[0, 1)``, or shapes or dtype do not fit.
        DataError: If an index is outside 0 … N-1; on the CPU only, as an accelerator would have to wait for the answer.

    Example:
        >>> features, weight = torch.randn(2, 3), torch.zeros(5, 3)
        >>> loss = datum_cross_entropy(features, weight, torch.tensor([0, 4]))
        >>> bool(torch.isclose(loss, torch.tensor(5.0).log()))  # log N, whatever the smoothing
        True
    """
    if index.dtype != torch.int64:
        raise ConfigurationError(f"Expected argument `index` to be int64, but got {index.dtype}.")
    if features.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ConfigurationError(
            f"Expected argument `features` to have shape (B, {weight.shape[1]}), as the rows of `weight` are, but got "
            f"{tuple(features.shape)}."
        )
    if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(weight):
        wrong = index[(index < 0) | (index >= len(weight))]
        raise DataError(
            f"Expected every index in 0 … {len(weight) - 1}, but got {int(wrong[0])}: the head has one row for each of "
            f"{len(weight)} training samples; wrap the data set in IndexedDataset last, after Subset or concatenation."
        )
    logits = F.linear(features, weight)  # (B, N)
    return F.cross_entropy(logits, index, label_smoothing=check_label_smoothing(label_smoothing))


def loss_floor(num_samples: int, label_smoothing: float) -> float:
    r"""The least value that `datum_cross_entropy` can take: the entropy of the smoothed target over N classes.

    :math:`-p \log p - (N - 1) q \log q` with :math:`q = \varepsilon / N` and :math:`p = 1 - \varepsilon + q`.
    The loss minus this floor compares runs of different N and smoothing.

    Args:
        num_samples: N, the number of training samples.
        label_smoothing: In ``[0, 1)``.

    Returns:
        The entropy, in nats.

    Example:
        >>> loss_floor(16, 0.0)
        0.0
    """
    rest = check_label_smoothing(label_smoothing) / num_samples
    if rest == 0.0:
        return 0.0
    own = 1.0 - label_smoothing + rest
    return -own * math.log(own) - (num_samples - 1) * rest * math.log(rest)
