"""EmbeddingWriter: what `predict` computes, in one file."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from diet_lightning.errors import ConfigurationError


class EmbeddingWriter(BasePredictionWriter):
    """Writes the embeddings of `Trainer.predict` to an ``.npz`` file with ``features``, ``index`` and ``label``.

    Rows are in the order of the index, each sample once, whatever the number of ranks.

    Args:
        path: The file; None for ``embeddings.npz`` in the Trainer's ``default_root_dir``.

    Raises:
        ConfigurationError: When `predict` starts, if the file exists.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses to overwrite, before anything is computed."""
        if stage == "predict" and self._file(trainer).exists():
            raise ConfigurationError(f"Output file '{self._file(trainer)}' exists: move it, or choose another path.")

    def _file(self, trainer: Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "embeddings.npz")

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        """Gathers the ranks' parts and writes the file."""
        part = {key: torch.cat([batch[key] for batch in predictions]).cpu() for key in ("features", "index", "label")}
        part["features"] = part["features"].float()
        parts = [part]
        if trainer.world_size > 1:
            parts = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, part)
        if not trainer.is_global_zero:
            return
        arrays = {key: torch.cat([each[key] for each in parts]).numpy() for key in part}
        _, first = np.unique(arrays["index"], return_index=True)  # repeats of the distributed sampler go
        file = self._file(trainer)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{uuid.uuid4().hex}.npz")  # a sibling, renamed when whole
        np.savez(partial, allow_pickle=False, **{key: value[first] for key, value in arrays.items()})
        partial.replace(file)
        rank_zero_info(f"Wrote {len(first)} embeddings of dimension {arrays['features'].shape[1]} to {file}.")
