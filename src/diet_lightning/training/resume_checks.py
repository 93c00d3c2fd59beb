"""Checks of a checkpoint before training resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from diet_lightning.errors import CheckpointError

TARGETS = {"index": "DIETModule (supervised=False)", "label": "SupervisedModule (supervised=True)"}


def check_network(saved: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Compares the network of a checkpoint with the one that its weights are loaded into.

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
                f"{here.get(name)} here; use the `backbone`, `stem` and `head.kind` it was trained with."
            )


def prepare_resume(checkpoint: dict[str, Any], ours: Mapping[str, Any]) -> None:
    """Checks and prepares the optimisers' and callbacks' states from which training resumes.

    Args:
        checkpoint: The checkpoint; its optimisers' and callbacks' states are copied.
        ours: This run's hyper-parameters.

    Raises:
        CheckpointError: If the optimiser's moments have another number of bits.
    """
    saved = checkpoint.get("hyper_parameters", {})
    check_moments(ours, saved)
    warn_of_ignored(ours, saved)
    for name in ("optimizer_states", "callbacks"):
        # states that are restored without a copy must not stay mapped to the file
        checkpoint[name] = apply_to_collection(checkpoint.get(name), Tensor, Tensor.clone)


def check_moments(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Raises an error if the moments of the checkpoint have another number of bits.

    Args:
        ours: This run's hyper-parameters.
        saved: The checkpoint's.

    Raises:
        CheckpointError: Naming the checkpoint's `head.moment_bits`.
    """
    theirs, here = saved["head"]["moment_bits"], ours["head"]["moment_bits"]
    if theirs != here:
        raise CheckpointError(
            f"The checkpoint was trained with head.moment_bits={theirs}, but this run has {here}: resume with "
            f"head.moment_bits={theirs}{' and head.kind=fused' if theirs == 8 else ''}."
        )


def warn_of_ignored(ours: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Warns of settings that a resumed optimiser takes from the checkpoint.

    Args:
        ours: This run's hyper-parameters.
        saved: The checkpoint's.
    """
    theirs, here = _optimizer_settings(saved), _optimizer_settings(ours)
    for name, value in theirs.items():
        if value != here[name]:
            rank_zero_warn(
                f"Resuming with the checkpoint's {name}={value}; {name}={here[name]} is ignored. Start a new run to change it."
            )


def _optimizer_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: hparams[name] for name in ("lr", "weight_decay")}
    return settings | {f"head.{name}": hparams["head"][name] for name in ("lr", "weight_decay", "eps")}


def require_same_target(ours: str, saved: str) -> None:
    """Raises an error if the checkpoint is of the other kind of module.

    Args:
        ours: `DIETModule.target` of the module.
        saved: The checkpoint's.

    Raises:
        CheckpointError: Naming the module that fits the checkpoint.
    """
    if saved != ours:
        raise CheckpointError(
            f"The checkpoint was trained with {TARGETS[saved]}, but this run uses {TARGETS[ours]}: the rows of its head are "
            f"other classes; use {TARGETS[saved]}, or start a new run without `ckpt_path`."
        )
