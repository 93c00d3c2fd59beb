"""RunRecorder: writes the facts of a run for `diet compare`, `diet audit` and `diet export`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.runs.record import RunRecord


class RunRecorder(Callback):
    """Writes ``run.json`` when a fit starts: N, fingerprint, classes and summary of the data, network, batch size, versions.

    `diet fit` adds it by itself. In a notebook it makes the folder of the run readable by `diet export`, and, together with
    ``CSVLogger(folder, name="", version="")``, by `diet compare`.

    Args:
        dirpath: Folder of the run; None for the Trainer's ``default_root_dir``.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the record, on rank zero. The network is built by now, and the data of a checkpoint have been compared."""
        if trainer.is_global_zero:
            _record(trainer, pl_module).write(self.dirpath or trainer.default_root_dir)


def _record(trainer: Trainer, diet: Any) -> RunRecord:
    given: Any = trainer.datamodule  # type: ignore[attr-defined]
    data = given if isinstance(given, DIETDataModule) else None
    names = None if data is None else data.class_names
    return RunRecord(
        num_samples=diet.num_samples,
        fingerprint=None if data is None else data.state_dict()["fingerprint"],
        input_shape=[int(size) for size in diet.hparams["input_shape"]],
        num_classes=diet.hparams.get("num_classes") if data is None else data.num_classes,
        class_names=None if names is None else [str(name) for name in names],
        source=None if data is None or data.source == "from_datasets" else data.source,
        backbone=diet.hparams.get("backbone"),
        target=diet.target,
        label_smoothing=float(diet.hparams["label_smoothing"]),
        batch_size=diet.total_batch_size(),
        data=None if data is None else data.summary().as_dict(),
    )
