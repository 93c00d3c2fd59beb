"""EmbeddingWriter: writes the embeddings of `predict` to one file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor, nn

from diet_lightning.callbacks.rank_zero import on_rank_zero
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import PredictionStore
from diet_lightning.embeddings.formats import check_format
from diet_lightning.embeddings.resumable import COLUMNS, finish_rows, prepare_rows, refuse_existing, writing
from diet_lightning.errors import ConfigurationError, DIETError
from diet_lightning.transforms.convert import tensor_bytes
from diet_lightning.utilities.files import partial_of
from diet_lightning.utilities.row_store import RowStore

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
        self._file = Path()  # where the run of `predict` under way writes
        self._is_set_up = False  # for a run of `predict` that has not ended
        self._rows: RowStore | None = None
        self._dim = 0  # K, known from the first rows
        self._class_names: Sequence[str] | None = None
        self._held = ExitStack()  # closes the rows and, on rank 0, releases their lock

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises an error if the file exists, before anything is computed."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            self._file = Path(self.path or Path(trainer.default_root_dir) / "embeddings.npz")
            refuse_existing(self._file)
            self._release()
            self._is_set_up, self._class_names = True, None

    def stored_samples(self, trainer: Trainer, count: int) -> NDArray[np.bool_]:
        """Which samples of the data module's `predict_split` an earlier run with these weights has written."""
        if not self._is_set_up:  # an interrupted Trainer still reports that it predicts
            return np.zeros(count, np.bool_)
        data: DIETDataModule = trainer.datamodule  # type: ignore[attr-defined]  # it is what asks
        pl_module, self._class_names = trainer.lightning_module, data.class_names
        identity = {
            **data.identity(data.predict_split),
            "embed_dim": getattr(pl_module, "embed_dim", None),
            "weights": _digest(getattr(pl_module, "backbone", pl_module)),
            "precision": str(trainer.precision),
        }
        done = self._open(trainer, identity).done(count)
        trainer.strategy.barrier()  # no rank marks further rows before all ranks have read the same ones
        if done.any():
            rank_zero_info(f"Resuming {self._file}: {done.sum()} of {len(done)} embeddings are there.")
        return done

    def _open(self, trainer: Trainer, identity: Mapping[str, Any] | None) -> RowStore:
        def prepare() -> None:
            lock, discarded = prepare_rows(self._file, identity)
            self._held.callback(lock.release)
            if discarded:
                rank_zero_info(
                    f"Unfinished embeddings beside {self._file} are of other weights or data: starting over."
                )

        on_rank_zero(trainer, prepare)
        with writing(self._file):
            self._rows = RowStore(partial_of(self._file), COLUMNS)
        self._held.callback(self._rows.close)
        return self._rows

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts over with a loader whose content is unknown."""
        if self._rows is None:
            self._open(trainer, None)

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
        try:
            features, index, label = (prediction[name].detach().cpu() for name in FIELDS)
        except (TypeError, LookupError, AttributeError) as error:
            raise ConfigurationError(
                f"EmbeddingWriter expects `predict_step` to return tensors under {list(FIELDS)}, as DIETModule's does."
            ) from error
        self._dim = features.shape[1]
        rows: Any = self._rows
        with writing(self._file):
            rows.write(index.numpy(), features=features.float().numpy(), label=label.numpy())
        if trainer.received_sigterm:  # Lightning itself would predict on
            raise SIGTERMException

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file from the rows of all ranks."""
        rows: Any = self._rows
        with writing(self._file):
            rows.flush()
        trainer.strategy.barrier()
        dataset = getattr(trainer.predict_dataloaders, "dataset", None)
        names = dataset.dataset.names if isinstance(dataset, IndexedDataset) else None
        count = on_rank_zero(trainer, lambda: finish_rows(self._file, rows, self._dim, names, self._class_names))
        rank_zero_info(f"Wrote {count} embeddings of dimension {self._dim} to {self._file}.")
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keeps what was computed."""
        if self._rows is not None and not isinstance(exception, DIETError):  # such as a disk that is full
            with writing(self._file):
                self._rows.flush()
        self._release()

    def _release(self) -> None:
        self._held.close()
        self._rows, self._is_set_up = None, False


def _digest(network: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor_bytes(value) if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()
