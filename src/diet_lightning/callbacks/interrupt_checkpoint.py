"""InterruptCheckpoint: Ctrl-C, SIGTERM and errors leave a checkpoint that resumes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info


class InterruptCheckpoint(Callback):
    """Saves ``interrupted.ckpt`` when training ends by Ctrl-C, SIGTERM or an error.

    The first Ctrl-C lets the step under way finish, as Lightning does on SIGTERM, so that the checkpoint is exact; the
    second stops at once. The file is removed once a later fit ends.

    Args:
        dirpath: Folder of the checkpoint; None for the Trainer's ``default_root_dir``.
    """

    # by hand, since beside an OnExceptionCheckpoint of Lightning the Trainer adds no ModelCheckpoint of its own

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath
        self._previous: Any = None  # the SIGINT handler to restore

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.dirpath or trainer.default_root_dir) / "interrupted.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turns the first Ctrl-C into Lightning's own graceful stop."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_sigint)

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        self._restore_handler()
        rank_zero_info("\nCtrl-C: finishing this step, then saving. Press again to stop at once.")
        signal.raise_signal(signal.SIGTERM)

    def _restore_handler(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves, unless nothing was trained yet."""
        self._restore_handler()
        if trainer.state.fn == TrainerFn.FITTING and trainer.global_step > 0:
            trainer.save_checkpoint(self._path(trainer))
            rank_zero_info(f"Saved {self._path(trainer)}: resume with ckpt_path.")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the signal handler and removes the checkpoint of an earlier interruption."""
        self._restore_handler()
        trainer.strategy.remove_checkpoint(self._path(trainer))
