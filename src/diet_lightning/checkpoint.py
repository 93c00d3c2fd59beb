"""Reading checkpoints without running their code, and saying what is wrong with the ones that cannot be read."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from diet_lightning.errors import CheckpointError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a local checkpoint of plain values and tensors, mapped from disk rather than copied.

    Args:
        path: A file written by Lightning.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: If the file is missing, truncated, no checkpoint, or a pickle that would run code.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"Checkpoint '{path}' does not exist: give the path of a .ckpt file.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint '{path}' holds more than tensors and plain values, so that loading it could run code, or is no "
            "checkpoint: it is refused; use a checkpoint written by DIETModule."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"Checkpoint '{path}' cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "the file is truncated or damaged; use an earlier one."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"File '{path}' is no Lightning checkpoint: it holds no 'state_dict'.")
    return checkpoint
