"""Conversion between the rows of one rank and checkpoints, which hold all rows of the head."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diet_lightning.objective import DatumHead

WEIGHT = "head.weight"


def save_full_rows(checkpoint: dict[str, Any], head: DatumHead, folder: str) -> None:
    """Puts all rows and their moments into a checkpoint; called on each rank before it is saved.

    Args:
        checkpoint: With this rank's rows; on rank 0 it holds all of them afterwards.
        head: The head.
        folder: Folder of the files from which rank 0 maps the rows into memory.
    """
    if not head.is_sharded:
        return
    for entries, name in _rows(checkpoint):
        entries[name] = head.state_to_save(entries[name], folder)


def load_local_rows(checkpoint: dict[str, Any], head: DatumHead) -> None:
    """Reduces a checkpoint with all rows to the rows of this rank."""
    if not head.is_sharded:
        return
    for entries, name in _rows(checkpoint):
        entries[name] = head.state_to_load(entries[name])


def _rows(checkpoint: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Finds the tensors of a checkpoint with one entry per row: their dictionaries, which may be changed, and keys."""
    found = [(checkpoint["state_dict"], WEIGHT)]
    for optimizer in checkpoint.get("optimizer_states", []):
        heads = [group["params"][0] for group in optimizer["param_groups"] if group.get("name") == "head"]
        for key in heads:
            # a copy: these dictionaries are the optimiser's own
            state = optimizer["state"] = dict(optimizer["state"])
            state[key] = dict(state.get(key, {}))
            found += [
                (state[key], name) for name, value in state[key].items() if isinstance(value, Tensor) and value.ndim
            ]
    return found
