"""Checks of the Trainer and of the memory that the head needs, before anything is allocated."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DDPStrategy

from diet_lightning.errors import ConfigurationError
from diet_lightning.objective import HEADS, HeadConfig, serves
from diet_lightning.objective.memory_estimate import estimate_memory
from diet_lightning.training.optimizer import REFERENCE_BATCH, find_batch_size
from diet_lightning.utilities.device_memory import GIB, available_memory


def check_head(kind: str, trainer: Trainer) -> None:
    """Raises `ConfigurationError` if a Trainer cannot train a kind of head, naming the option and the kind that serves it."""
    world, clip, precision = trainer.world_size, trainer.gradient_clip_val, str(trainer.precision)
    steps_itself, in_shards = HEADS[kind].steps_itself, kind == "sharded" and world > 1
    problem = None
    if not serves(kind, world):
        problem = f"it serves one process, but there are {world}: set `head.kind` to sharded or dense"
    elif steps_itself and clip:
        problem = (
            f"gradient_clip_val={clip} needs a gradient that it does not hold: leave clipping out, or set `head.kind` to "
            "dense"
        )
    elif in_shards and not isinstance(trainer.strategy, DDPStrategy):
        problem = f"{type(trainer.strategy).__name__} would not keep the rows on their ranks: set the Trainer's `strategy` to ddp"
    elif in_shards and clip and trainer.gradient_clip_algorithm != "value":
        problem = (
            f"gradient_clip_val={clip} needs one norm over all ranks: clip by value (gradient_clip_algorithm), or set "
            "`head.kind` to dense"
        )
    elif (steps_itself or in_shards) and precision.startswith("16"):
        problem = f"precision={precision} skips steps by itself: use bf16-mixed, or set `head.kind` to dense"
    if problem is not None:
        raise ConfigurationError(f"head.kind={kind!r} cannot be trained by this Trainer; {problem}.")


def check_callbacks(trainer: Trainer, kind: str, was_built: bool) -> None:
    """Raises `ConfigurationError` for Lightning callbacks that would silently train or save something else.

    `was_built` says whether the network existed when the callbacks were set up.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        name, problem = type(callback).__name__, None
        if isinstance(callback, BackboneFinetuning):
            problem = "adds parameters to the optimiser that its schedule does not know: use LastBlocks"
        elif isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            if kind == "sampled":
                problem = "cannot average rows whose decay is pending: set `head.kind` to fused or dense"
            elif kind == "sharded" and trainer.world_size > 1:
                problem = "would save the rows of one rank only: set `head.kind` to dense"
            elif not was_built:
                problem = (
                    "copies the network before N is known: pass a DIETDataModule to the Trainer, or set `num_samples` and "
                    "`input_shape`"
                )
        if problem is not None:
            raise ConfigurationError(f"{name} {problem}.")


def check_memory(config: HeadConfig, num_samples: int, embed_dim: int, trainer: Trainer, held: int) -> str:
    """Gives an estimate of the head's memory in one line; `held` bytes of it are allocated already.

    Raises:
        ConfigurationError: Naming the kind of head that would fit, before anything is allocated.
    """
    device = torch.device("cpu") if config.on_cpu else trainer.strategy.root_device
    run = {
        "num_samples": num_samples,
        "embed_dim": embed_dim,
        "batch_size": find_batch_size(trainer) or REFERENCE_BATCH,
        "num_sampled": config.num_sampled,
        "moment_bits": config.moment_bits,
        "devices": trainer.world_size,
        "accumulate": trainer.accumulate_grad_batches,
        "product_bytes": 4 if "32" in str(trainer.precision) else 2,
    }
    estimates = {name: estimate_memory(name, **run, device=device.type) for name in HEADS}
    estimate, left = estimates[config.kind], available_memory(device)
    shape = f"N={num_samples:,} × K={embed_dim:,}"
    # the processes of one machine's CPUs share its memory
    processes = trainer.num_devices if device.type == "cpu" else 1
    if left is None or estimate.total * processes <= left + held:
        return f"Head, {config.kind}, {shape}: {estimate} on each device."
    fitting = [
        name for name in HEADS if serves(name, trainer.world_size) and estimates[name].total * processes <= left + held
    ]
    cure = (
        f"set `head.kind` to {fitting[0]!r}, which takes {estimates[fitting[0]]}"
        if fitting
        else ("take more devices with `head.kind` 'sharded', a smaller backbone, or fewer samples (`subset`)")
    )
    raise ConfigurationError(
        f"The head of {shape} takes {estimate} as head.kind={config.kind!r}, but {device} has "
        f"{left / GIB:.2f} GiB left{f' for {processes} processes' if processes > 1 else ''}: {cure}."
    )
