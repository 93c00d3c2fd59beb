"""The head's placement in a Trainer: what it cannot serve, and checkpoints that hold all rows whatever the placement."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective import HEADS, ShardedHead, SteppingHead, serves
from diet_lightning.objective.memory_estimate import head_bill
from diet_lightning.utilities.device_memory import GIB, available_memory

WEIGHT = "head.weight"


def check_placement(placement: str, trainer: Trainer) -> None:
    """Refuses a Trainer that would not train a head as it is placed.

    Args:
        placement: As of `DIETModule`.
        trainer: The Trainer.

    Raises:
        ConfigurationError: Naming the option and the placement that serves it.
    """
    world, precision = trainer.world_size, str(trainer.precision)
    clipped = trainer.gradient_clip_val and trainer.gradient_clip_algorithm != "value"
    problem = None
    steps_itself = issubclass(HEADS[placement], SteppingHead)
    if steps_itself:
        if not serves(placement, world):
            problem = f"it serves one process, but there are {world}: set `placement` to sharded or dense"
        elif trainer.gradient_clip_val:
            problem = (
                f"gradient_clip_val={trainer.gradient_clip_val} needs a gradient that it does not hold: leave clipping out, "
                "or set `placement` to dense"
            )
    elif placement == "sharded" and world > 1:
        if not isinstance(trainer.strategy, DDPStrategy):
            problem = (
                f"{type(trainer.strategy).__name__} would not leave its rows to their ranks: set the Trainer's `strategy` to "
                "ddp"
            )
        elif clipped:
            problem = (
                f"gradient_clip_val={trainer.gradient_clip_val} needs one norm over all ranks: clip by value "
                "(gradient_clip_algorithm), or set `placement` to dense"
            )
    own_step = steps_itself or (placement == "sharded" and world > 1)
    if problem is None and own_step and precision.startswith("16"):
        problem = f"precision={precision} skips steps of its own accord: use bf16-mixed, or set `placement` to dense"
    if problem is not None:
        raise ConfigurationError(f"placement={placement!r} cannot be trained so; {problem}.")


def check_memory(placement: str, sizes: dict[str, int], trainer: Trainer, on_cpu: bool, held: int) -> None:
    """Says what the head will take, and refuses it where that is more than there is.

    Args:
        placement: As of `DIETModule`.
        sizes: The arguments of `head_bill` that are the model's and the data's.
        trainer: The Trainer.
        on_cpu: Whether the rows stay in the CPU's memory.
        held: Bytes of it that exist already.

    Raises:
        ConfigurationError: Naming the placement that would fit, before anything is allocated.
    """
    device = torch.device("cpu") if on_cpu else trainer.strategy.root_device
    run = {
        "devices": trainer.world_size,
        "accumulate": trainer.accumulate_grad_batches,
        "product_bytes": 4 if "32" in str(trainer.precision) else 2,
    }
    bills = {name: head_bill(name, **sizes, **run, device=device.type) for name in HEADS}
    bill, left = bills[placement], available_memory(device)
    shape = f"N={sizes['num_samples']:,} × K={sizes['embed_dim']:,}"
    rank_zero_info(f"Head, {placement}, {shape}: {bill} on each device.")
    # the processes of one machine's CPUs share its memory
    share = trainer.num_devices if device.type == "cpu" else 1
    if left is None or bill.total * share <= left + held:
        return
    fitting = [name for name in HEADS if serves(name, trainer.world_size) and bills[name].total * share <= left + held]
    cure = (
        f"set `placement` to {fitting[0]!r}, which takes {bills[fitting[0]]}"
        if fitting
        else ("take more devices with `placement` 'sharded', a smaller backbone, or fewer samples (`subset`)")
    )
    raise ConfigurationError(
        f"The head of {shape} takes {bill} as placement={placement!r}, but {device} has "
        f"{left / GIB:.2f} GiB left{f' for {share} processes' if share > 1 else ''}: {cure}."
    )


def make_whole(checkpoint: dict[str, Any], head: ShardedHead, folder: str) -> None:
    """Puts all rows, and their optimiser's moments, into a checkpoint that each rank is about to save.

    Args:
        checkpoint: With this rank's rows; on rank 0 it holds all of them afterwards.
        head: The head.
        folder: Where rank 0 maps them into memory from.
    """
    if head.world == 1:
        return
    for entries, name in _rows(checkpoint):
        entries[name] = head.whole(entries[name], folder)


def keep_part(checkpoint: dict[str, Any], head: ShardedHead) -> None:
    """Keeps this rank's rows only, of a checkpoint that holds all."""
    if head.world == 1:
        return
    for entries, name in _rows(checkpoint):
        entries[name] = head.part(entries[name])


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
