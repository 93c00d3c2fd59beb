"""What a Trainer cannot train, and what the head will take of memory, said before anything is allocated."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective import HEADS, SteppingHead, serves
from diet_lightning.objective.memory_estimate import head_bill
from diet_lightning.utilities.device_memory import GIB, available_memory


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
