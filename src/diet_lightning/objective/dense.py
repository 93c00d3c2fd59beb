"""DIET's classifier: one row per training sample, no bias."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from diet_lightning.errors import ConfigurationError, require
from diet_lightning.objective.loss import check_label_smoothing, datum_cross_entropy, loss_floor

AT_ONCE = 2**22  # values of W that are drawn, sent or updated at a time


def blocks(first: int, last: int, embed_dim: int) -> Iterator[tuple[int, int]]:
    """Cuts the rows first … last-1 into blocks that are small beside W: the start and end of each."""
    step = max(1, AT_ONCE // embed_dim)
    for start in range(first, last, step):
        yield start, min(start + step, last)


class DatumHead(nn.Module):
    r"""Bias-free linear classifier W of shape N×K with its label-smoothed cross-entropy (DIET, Algorithm 1).

    Called with a batch of embeddings and their sample indices, it returns the loss. By default neither embeddings nor
    rows are normalised, as in the paper. With unit norms it is a variant of Reizinger et al. (ICLR 2025), whose logits are
    :math:`\beta \langle w_n, f(x) \rangle` with :math:`\beta` = 1 / `temperature`.

    Its kind is ``dense``: W is an ordinary parameter with a gradient, for any optimiser. The other kinds are subclasses.

    Args:
        num_samples: N, the number of training samples, at least 2.
        embed_dim: K, the dimension of the embeddings.
        label_smoothing: In ``[0, 1)``.
        normalize_features: Divide each embedding by its L2 norm.
        normalize_rows: Divide each row of W by its L2 norm.
        temperature: The logits are divided by it; with both norms on, 0.05 to 0.2 is usual.

    Raises:
        ConfigurationError: If an argument is outside its range.

    Shape:
        features ``(B, K)`` floating point, index ``(B,)`` int64 → a scalar.
    """

    steps_itself: ClassVar[bool] = False  # whether it updates W after the optimiser's step, in one process

    def __init__(
        self,
        num_samples: int,
        embed_dim: int,
        label_smoothing: float = 0.8,
        normalize_features: bool = False,
        normalize_rows: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if num_samples < 2:
            raise ConfigurationError(
                f"Expected argument `num_samples` to be at least 2, but got {num_samples}: DIET distinguishes "
                "samples, so it needs more than one."
            )
        require(temperature > 0.0, "temperature", "greater than 0", temperature)
        self.num_samples = num_samples
        self.embed_dim = embed_dim
        self.label_smoothing = check_label_smoothing(label_smoothing)
        self.normalize_features = normalize_features
        self.normalize_rows = normalize_rows
        self.temperature = temperature
        start, stop = self.rows
        self.weight = nn.Parameter(torch.empty(stop - start, embed_dim))
        self.reset_parameters()

    @property
    def rows(self) -> tuple[int, int]:
        """The rows of W held here: the first, and the one after the last."""
        return 0, self.num_samples

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws W as `torch.nn.Linear` does, uniform within ±1/sqrt(K): the same values for every kind of head."""
        bound = 1.0 / math.sqrt(self.embed_dim)
        first, last = self.rows
        for start, stop in blocks(0, self.num_samples, self.embed_dim):
            drawn = torch.empty(stop - start, self.embed_dim).uniform_(-bound, bound)
            held, end = max(start, first), min(stop, last)
            if held < end:
                self.weight[held - first : end - first] = drawn[held - start : end - start]

    @property
    def floor(self) -> float:
        """The smallest loss that this head can reach, in nats, see `loss_floor`."""
        return loss_floor(self.num_samples, self.label_smoothing)

    def forward(self, features: Tensor, index: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar, from embeddings ``(B, K)`` and indices ``(B,)``, int64, in ``[0, N)``."""
        return self._loss(self.scaled(features), index)

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``(B, rows)`` of embeddings ``(B, K)`` over all rows of this process, in float32; for few rows."""
        rows = self.weight.float()
        return F.linear(self.scaled(features.float()), F.normalize(rows, dim=1) if self.normalize_rows else rows)

    def scaled(self, features: Tensor) -> Tensor:
        """Embeddings for the product with W: normalised if requested, and divided by the temperature."""
        if self.normalize_features:
            features = F.normalize(features, dim=1)
        return features / self.temperature if self.temperature != 1.0 else features

    def _loss(self, features: Tensor, index: Tensor) -> Tensor:
        """The mean loss of `scaled` embeddings."""
        return datum_cross_entropy(
            features, self.weight, index, self.label_smoothing, normalize_rows=self.normalize_rows
        )

    # -- hooks of a training run --------------------------------------------------------------------------------------

    @property
    def is_sharded(self) -> bool:
        """Whether other processes hold rows that are not held here."""
        return False

    def on_setup(self) -> None:
        """Called in every process before training, after the process group is set up."""

    def attach(self, optimizer: Optimizer) -> None:
        """Called with the optimiser that has W among its parameters, before the first step."""

    def state_to_save(self, local: Tensor, folder: str | Path) -> Tensor | None:
        """All N rows of W, or of a tensor of the optimiser with one row each, for a checkpoint.

        Args:
            local: The rows held here, shape ``(n, ...)``.
            folder: Folder for a file that is mapped into memory, if gathering the rows needs one.

        Returns:
            Shape ``(N, ...)``, or None in a process that does not write checkpoints.
        """
        return local

    def state_to_load(self, full: Tensor) -> Tensor:
        """The rows held here of a tensor of a checkpoint with all N, shape ``(N, ...)`` to ``(n, ...)``."""
        return full

    def on_fit_end(self, optimizer: Optimizer | None, folder: str | Path) -> None:
        """Called in every process after training; then rank 0 can use the head, and the optimiser's state, without the others."""

    def extra_repr(self) -> str:
        """Sizes of the head, for `print(module)`."""
        return f"num_samples={self.num_samples}, embed_dim={self.embed_dim}, smoothing={self.label_smoothing}"
