"""Files of checkpoints: read without running code, written without a copy in memory. `training.checkpointed` lists the contents."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from diet_lightning.errors import CheckpointError, first_line
from diet_lightning.utilities.files import atomic_write


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of Lightning from a local file, whose tensors are mapped from disk rather than copied.

    Raises:
        CheckpointError: If the file is missing, truncated, not a checkpoint, or a pickle that would run code.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"Checkpoint '{path}' does not exist: give the path of a .ckpt file.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint '{path}' holds more than tensors and plain values, so that loading it could run code, or is not a "
            "checkpoint: it is refused; use a checkpoint written by DIETModule."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"Checkpoint '{path}' cannot be read ({first_line(error)}): the file is truncated or damaged; use an earlier one."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(
            f"File '{path}' is not a Lightning checkpoint, since it has no 'state_dict': give the path of a .ckpt file."
        )
    return checkpoint


class LeanCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin, with files that may be larger than memory.

    A checkpoint is streamed to a temporary sibling file, which is then renamed; Lightning would first copy it into memory.
    It is mapped from disk when it is read, so that a rank which needs some rows of the head reads only those. Code in it is
    not run, even if `Trainer.fit` is called without ``weights_only=True``. Paths in object stores are left to Lightning.

    `diet fit` passes it to its Trainer; a notebook does so by ``Trainer(plugins=LeanCheckpointIO())``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; an interruption keeps the existing file."""
        if _is_remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_write(Path(path)) as partial:
            torch.save(checkpoint, partial)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            CheckpointError: As `read_checkpoint`, unless ``weights_only=False`` allows code to run.
        """
        if _is_remote(path) or weights_only is False:
            checkpoint: dict[str, Any] = super().load_checkpoint(path, weights_only=weights_only)
            return checkpoint
        return read_checkpoint(path)


def _is_remote(path: Any) -> bool:
    return "://" in str(path)
