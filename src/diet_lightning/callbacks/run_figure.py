"""RunFigure: the picture of a run, drawn when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diet_lightning.figures.curves import training_curves
from diet_lightning.figures.style import save_figure
from diet_lightning.runs.metrics import LOSS_GAP, is_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class RunFigure(Callback):
    """Draws loss gap and probe accuracy over the epochs to ``figure.png``, also when a run is interrupted.

    The curves are kept in the checkpoint, so that a resumed run's figure shows all of it. Loggers that take images
    (W&B) get it as ``figure``.

    Args:
        dirpath: Folder of the picture; None for the Trainer's ``default_root_dir``.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath
        self._curves: dict[str, dict[int, float]] = {}  # metric → epochs completed → value

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the epoch's training metrics (this callback comes after the probes)."""
        self._record(trainer, "train")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the validation's metrics."""
        if not trainer.sanity_checking:
            self._record(trainer, "val")

    def _record(self, trainer: Trainer, split: str) -> None:
        # values of the other split are from an earlier epoch if not every epoch is validated
        for name, value in trainer.callback_metrics.items():
            if is_accuracy(name, (split,)) or (name == LOSS_GAP and split == "train"):
                self._curves.setdefault(name, {})[trainer.current_epoch + 1] = float(value)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the picture."""
        if trainer.is_global_zero and LOSS_GAP in self._curves:
            accuracies = {name: curve for name, curve in self._curves.items() if name != LOSS_GAP}
            folder = Path(self.dirpath or trainer.default_root_dir)
            save_and_log(training_curves(self._curves[LOSS_GAP], accuracies), "figure", folder, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draws the curves so far."""
        self.on_fit_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return {"curves": self._curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the curves of a checkpoint."""
        self._curves = state_dict["curves"]


def save_and_log(figure: Figure, name: str, folder: Path, trainer: Trainer) -> None:
    """Writes a figure to ``{name}.png`` in a folder, and passes it to loggers that take images, under its name."""
    path = folder / f"{name}.png"
    save_figure(figure, path)
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(name, [str(path)])
