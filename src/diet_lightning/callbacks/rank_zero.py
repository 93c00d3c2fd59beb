"""Work that one process does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Trainer

from diet_lightning.errors import DIETError

T = TypeVar("T")


def on_rank_zero(trainer: Trainer, action: Callable[[], T]) -> T:
    """Calls a function on rank 0 while the other ranks wait; all ranks return its result, or raise its `DIETError`."""
    result: T | DIETError | None = None
    if trainer.is_global_zero:
        try:
            result = action()
        except DIETError as error:
            result = error
    result = trainer.strategy.broadcast(result)
    if isinstance(result, DIETError):
        raise result
    return result  # type: ignore[return-value]
