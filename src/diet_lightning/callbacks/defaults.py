"""The callbacks of a run of `diet fit`, for a notebook's Trainer too."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from diet_lightning.callbacks.feature_rank import FeatureRank
from diet_lightning.callbacks.finite_guard import FiniteGuard
from diet_lightning.callbacks.interrupt_checkpoint import InterruptCheckpoint
from diet_lightning.callbacks.online_probe import OnlineLinearProbe
from diet_lightning.callbacks.progress_bar import FitProgressBar
from diet_lightning.callbacks.run_figure import RunFigure
from diet_lightning.callbacks.run_recorder import RunRecorder
from diet_lightning.runs.folder import CHECKPOINTS


def default_callbacks(
    run_dir: str | Path,
    probe: OnlineLinearProbe | None = None,
    save_every_n_epochs: int = 1,
    progress_bar: bool = True,
) -> list[Callback]:
    """Makes the callbacks that `diet fit` gives its Trainer.

    Args:
        run_dir: Folder of the run; checkpoints go to ``checkpoints`` within it.
        probe: The probe; None for one that leaves out data without labels.
        save_every_n_epochs: Epochs between checkpoints; the last one is kept.
        progress_bar: Whether to show progress.

    Returns:
        The callbacks, in the order in which the Trainer needs them.

    Example:
        >>> [type(each).__name__ for each in default_callbacks("runs/a")][:3]
        ['OnlineLinearProbe', 'FitProgressBar', 'RunRecorder']
    """
    checkpoints = str(Path(run_dir) / CHECKPOINTS)
    # the probe comes before the figure, which reads its metrics
    return [
        OnlineLinearProbe(enabled=None) if probe is None else probe,
        *([FitProgressBar()] if progress_bar else []),
        RunRecorder(str(run_dir)),
        FeatureRank(),
        FiniteGuard(),
        InterruptCheckpoint(checkpoints),
        ModelCheckpoint(
            checkpoints,
            "last",
            every_n_epochs=save_every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        RunFigure(str(run_dir)),
    ]
