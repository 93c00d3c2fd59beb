"""Checkpoints hold all rows of the head, also where they are sharded over the ranks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diet_lightning.objective import DatumHead

WEIGHT = "head.weight"


def save_full_rows(checkpoint: dict[str, Any], head: DatumHead, folder: str) -> None:
    """Puts all rows, and their optimiser's moments, into a checkpoint that each rank is about to save.

    Args:
        checkpoint: With this rank's rows; on rank 0 it holds all of them afterwards.
        head: The head.
        folder: Where rank 0 maps them into memory from.
    """
    if not head.is_sharded:
        return
    for entries, name in _rows(checkpoint):
        entries[name] = head.state_to_save(entries[name], folder)


def load_local_rows(checkpoint: dict[str, Any], head: DatumHead) -> None:
    """Keeps this rank's rows only, of a checkpoint that holds all."""
    if not head.is_sharded:
        return
    for entries, name in _rows(checkpoint):
        entries[name] = head.state_to_load(entries[name])


def _rows(checkpoint: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where a checkpoint holds values a row: the dictionaries, which may be changed, and their keys."""
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
