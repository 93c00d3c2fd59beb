"""EmbeddingWriter: writes the embeddings of `predict` to one file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor, nn

from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import PredictionStore
from diet_lightning.embeddings.formats import check_format
from diet_lightning.embeddings.resumable import PartialEmbeddings, refuse_existing
from diet_lightning.errors import ConfigurationError, DIETError
from diet_lightning.transforms.convert import tensor_bytes

FIELDS = ("features", "index", "label")


class EmbeddingWriter(PredictionStore, BasePredictionWriter):
    """Writes the embeddings of `Trainer.predict` to a file that `read_embeddings` reads.

    It holds ``features`` (float32, N×K), ``index``, ``label`` (int64, -1 for none) and, where samples or classes have names,
    ``path`` and ``class_names``. Rows are in the order of the index, each sample once, whatever the number of ranks.

    Rows are written as they are computed, to the folder ``.NAME.partial`` beside the file. All ranks need access to it; no
    process holds all rows in memory. With a `DIETDataModule` a killed run resumes when it is started again, on any number of
    ranks: it computes the missing batches, and the file is bitwise the same. With other weights, data or precision it starts
    over. Pass ``return_predictions=False`` to `Trainer.predict`, else Lightning keeps a copy of all predictions.

    Args:
        path: The file, ``.npz``, ``.parquet`` or ``.safetensors``; None for ``embeddings.npz`` in the Trainer's
            ``default_root_dir``.

    Raises:
        ConfigurationError: If the suffix is unknown or its library is missing; when `predict` starts, if the file exists
            or cannot be written; later, if the disk is full, where the computed rows are kept.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="batch")
        if path is not None:
            check_format(Path(path))
        self.path = path
        self._is_set_up = False  # for a run of `predict` that has not ended
        self._partial: PartialEmbeddings | None = None
        self._lock: BaseFileLock | None = None  # rank 0's
        self._data: DIETDataModule | None = None  # where it is what is predicted

    def _file(self, trainer: Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "embeddings.npz")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises an error if the file exists, before anything is computed."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            refuse_existing(self._file(trainer))
            self._release()
            self._is_set_up = True

    def stored_samples(self, trainer: Trainer, count: int) -> NDArray[np.bool_]:
        """Which samples of the data module's `predict_split` an earlier run with these weights has written."""
        if not self._is_set_up:  # an interrupted Trainer still reports that it predicts
            return np.zeros(count, np.bool_)
        data: DIETDataModule = trainer.datamodule  # type: ignore[attr-defined]  # it is what asks
        pl_module = trainer.lightning_module
        split, weights = data.predict_split, _digest(getattr(pl_module, "backbone", pl_module))
        opened = self._open(
            trainer,
            lambda: {
                **data.identity(split),
                "embed_dim": getattr(pl_module, "embed_dim", None),
                "weights": weights,
                "precision": str(trainer.precision),
            },
        )
        self._data = data
        done = opened.done(count)
        trainer.strategy.barrier()  # no rank marks further rows before all ranks have read the same ones
        if done.any():
            rank_zero_info(f"Resuming {self._file(trainer)}: {done.sum()} of {len(done)} embeddings are there.")
        return done

    def _open(self, trainer: Trainer, identity: Callable[[], Mapping[str, Any] | None]) -> PartialEmbeddings:
        file = self._file(trainer)

        def prepare() -> None:
            self._lock, discarded = PartialEmbeddings.lock(file, identity())
            if discarded:
                rank_zero_info(f"Unfinished embeddings beside {file} are of other weights or data: starting over.")

        _on_rank_zero(trainer, prepare)
        self._partial = PartialEmbeddings(file)
        return self._partial

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts over with a loader whose content is unknown."""
        if self._partial is None:
            self._open(trainer, lambda: None)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes a batch to its rows.

        Raises:
            ConfigurationError: If the module does not predict what `DIETModule` does, or the disk is full.
        """
        if dataloader_idx > 0:
            raise ConfigurationError(
                "EmbeddingWriter writes the embeddings of one loader, but `predict` was given several: run it for each of them."
            )
        if not isinstance(prediction, Mapping) or not all(isinstance(prediction.get(name), Tensor) for name in FIELDS):
            raise ConfigurationError(
                f"EmbeddingWriter expects `predict_step` to return tensors under {list(FIELDS)}, as DIETModule's does."
            )
        features, index, label = (prediction[name].detach().cpu() for name in FIELDS)
        self._opened.write(index.numpy(), features=features.float().numpy(), label=label.numpy())
        if trainer.received_sigterm:  # Lightning itself would predict on
            raise SIGTERMException

    @property
    def _opened(self) -> PartialEmbeddings:
        if self._partial is None:
            raise RuntimeError("EmbeddingWriter was not set up by a Trainer.")
        return self._partial

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file from the rows of all ranks."""
        opened, file = self._opened, self._file(trainer)
        opened.flush()
        trainer.strategy.barrier()

        def finish() -> None:
            count = opened.finish(self._names(trainer), None if self._data is None else self._data.class_names)
            rank_zero_info(f"Wrote {count} embeddings of dimension {opened.dim} to {file}.")

        _on_rank_zero(trainer, finish)
        self._release()

    def _names(self, trainer: Trainer) -> list[str] | None:
        if self._data is not None:
            return self._data.names(self._data.predict_split)
        dataset = getattr(trainer.predict_dataloaders, "dataset", None)
        return dataset.dataset.names if isinstance(dataset, IndexedDataset) else None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keeps what was computed."""
        if self._partial is not None and not isinstance(exception, DIETError):  # such as a disk that is full
            self._partial.flush()
        self._release()

    def _release(self) -> None:
        if self._partial is not None:
            self._partial.close()
        if self._lock is not None:
            self._lock.release()
        self._partial = self._lock = self._data = None
        self._is_set_up = False


def _digest(network: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def _on_rank_zero(trainer: Trainer, action: Callable[[], None]) -> None:
    """Runs an action on rank 0 while the other ranks wait; an error is raised on all ranks."""
    error: DIETError | None = None
    if trainer.is_global_zero:
        try:
            action()
        except DIETError as found:
            error = found
    error = trainer.strategy.broadcast(error)
    if error is not None:
        raise error
