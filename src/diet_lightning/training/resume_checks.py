"""What a checkpoint must agree with before training goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from diet_lightning.errors import CheckpointError


def check_network(saved: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Compares a checkpoint's network with the one that is to take its weights.

    Args:
        saved: The checkpoint's weights.
        ours: The module's.

    Raises:
        CheckpointError: Naming the first weight that differs in shape, or is missing on one side.
    """
    theirs, here = ({name: tuple(value.shape) for name, value in weights.items()} for weights in (saved, ours))
    for name in {**theirs, **here}:
        if theirs.get(name) != here.get(name):
            raise CheckpointError(
                f"The checkpoint's network differs from this one: '{name}' has shape {theirs.get(name)} there and "
                f"{here.get(name)} here; use the `backbone`, `stem` and `placement` it was trained with."
            )


def check_moments(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuses to resume with moments that are kept in another way.

    Args:
        ours: This run's hyper-parameters.
        saved: The checkpoint's.

    Raises:
        CheckpointError: Naming the checkpoint's `moment_bits`.
    """
    theirs = saved.get("moment_bits", 32)
    if theirs != ours["moment_bits"]:
        raise CheckpointError(
            f"The checkpoint was trained with moment_bits={theirs}, but this run has {ours['moment_bits']}: resume with "
            f"moment_bits={theirs}{' and placement=fused' if theirs == 8 else ''}."
        )


def warn_of_ignored(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Says which settings a resumed optimiser takes from the checkpoint.

    Args:
        ours: This run's hyper-parameters.
        saved: The checkpoint's.
    """
    for name in ("lr", "weight_decay", "head_lr", "head_weight_decay", "eps"):
        if name in saved and saved[name] != ours[name]:
            rank_zero_warn(
                f"Resuming with the checkpoint's {name}={saved[name]}; {name}={ours[name]} is ignored. Start a new run to "
                "change it."
            )


def require_same_target(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Keeps the checkpoints of the two kinds of run apart.

    Args:
        ours: This run's hyper-parameters.
        saved: The checkpoint's.

    Raises:
        CheckpointError: Naming the checkpoint's `target`.
    """
    theirs = saved.get("target", "index")  # there was no other before
    if theirs != ours["target"]:
        raise CheckpointError(
            f"The checkpoint was trained with target={theirs!r}, but this run has {ours['target']!r}: the rows of its head "
            f"are other classes; use target={theirs!r}, or start a new run without `ckpt_path`."
        )
