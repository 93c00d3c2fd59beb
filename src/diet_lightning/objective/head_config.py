"""HeadConfig: the kind of head and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from diet_lightning.errors import ConfigurationError, require
from diet_lightning.objective.dense import DatumHead
from diet_lightning.objective.fused import FusedHead
from diet_lightning.objective.sampled import SampledHead
from diet_lightning.objective.sharded import ShardedHead

HeadKind = Literal["dense", "fused", "sharded", "sampled"]
HEADS: dict[str, type[DatumHead]] = {
    "dense": DatumHead,
    "fused": FusedHead,
    "sharded": ShardedHead,
    "sampled": SampledHead,
}


@dataclass(frozen=True)
class HeadConfig:
    """Kind and settings of the head with its N rows.

    Attributes:
        kind: Storage of the rows; the loss is the same except for ``"sampled"``. ``"dense"``: an ordinary parameter.
            ``"fused"``: without a stored gradient, a third less memory, on one device. ``"sharded"``: over the devices of
            a DDP run, N / devices rows on each. ``"sampled"``: an approximation whose cost does not grow with N, see
            `SampledHead`.
        lr: Learning rate of the head at a total batch of 256; None for the model's `lr`.
        weight_decay: AdamW's weight decay on the head; None for the model's `weight_decay`.
        eps: AdamW's eps for the head. The gradient of a row that is not in the batch is about 1 / (N·B): at some ten
            million samples it falls below 1e-8.
        num_sampled: Rows drawn at each step, for ``"sampled"``.
        on_cpu: Keep the rows in the CPU's memory, for ``"sampled"``.
        moment_bits: Bits per number in AdamW's moments of the rows: 32, or 8 for ``"fused"``, an approximation that halves
            the memory of the head, see `Moments8bit`.
        normalize_features: Divide each embedding by its L2 norm before the head.
        normalize_rows: Divide each row of the head by its L2 norm.
        temperature: The logits are divided by it.

    Raises:
        ConfigurationError: For a value outside its range, or one that the kind does not support.

    Example:
        >>> HeadConfig("fused", moment_bits=8).make(100, 16, label_smoothing=0.8).weight.shape
        torch.Size([100, 16])
    """

    kind: HeadKind = "dense"
    lr: float | None = None
    weight_decay: float | None = None
    eps: float = 1e-8
    num_sampled: int = 8192
    on_cpu: bool = False
    moment_bits: Literal[8, 32] = 32
    normalize_features: bool = False
    normalize_rows: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values."""
        require(self.kind in HEADS, "head.kind", f"one of {list(HEADS)}", self.kind)
        for name, value in {"lr": self.lr, "weight_decay": self.weight_decay, "eps": self.eps}.items():
            require(value is None or value >= 0.0, f"head.{name}", "at least 0", value)
        require(self.temperature > 0.0, "head.temperature", "greater than 0", self.temperature)
        require(self.num_sampled >= 1, "head.num_sampled", "at least 1", self.num_sampled)
        if self.on_cpu and self.kind != "sampled":
            raise ConfigurationError(
                f"Expected argument `head.on_cpu` to be False with head.kind={self.kind!r}, but got True: only the rows of "
                "'sampled' may stay there."
            )
        if self.moment_bits not in (8, 32) or (self.moment_bits == 8 and self.kind != "fused"):
            raise ConfigurationError(
                f"Expected argument `head.moment_bits` to be 32, or 8 with head.kind='fused', but got {self.moment_bits} with "
                f"head.kind={self.kind!r}."
            )

    def make(self, num_samples: int, embed_dim: int, label_smoothing: float) -> DatumHead:
        """Makes the head, with initialised rows; arguments as of `DatumHead`."""
        options: dict[str, Any] = {}
        if self.kind == "sampled":
            options = {"num_sampled": self.num_sampled, "on_cpu": self.on_cpu}
        elif self.kind == "fused":
            options = {"moment_bits": self.moment_bits}
        shared = (label_smoothing, self.normalize_features, self.normalize_rows, self.temperature)
        return HEADS[self.kind](num_samples, embed_dim, *shared, **options)


def serves(kind: str, processes: int) -> bool:
    """Whether a kind of head can train in this number of processes."""
    return processes == 1 or not HEADS[kind].steps_itself
