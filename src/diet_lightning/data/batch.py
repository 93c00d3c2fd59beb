"""The one batch type."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

NO_LABEL = -1


def has_labels(labels: Tensor | None) -> bool | None:
    """Whether one of the labels, int64 of shape ``(N,)``, is given; None if they are not known."""
    return None if labels is None else bool((labels != NO_LABEL).any())


class DatumBatch(NamedTuple):
    """A batch of samples, or one sample without the leading dimension.

    Attributes:
        input: Inputs, shape ``(B, ...)``; images are ``(B, C, H, W)``, uint8 until they are augmented, and `RaggedImages` as
            long as they have several sizes.
        index: Index of each sample in its data set, shape ``(B,)``, int64, in ``[0, N)``: DIET's class.
        label: The user's label, shape ``(B,)``, int64, -1 for samples without one; DIET does not train on it.
    """

    input: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used
    label: Tensor
