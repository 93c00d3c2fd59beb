"""The configuration of a run, kept in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from diet_lightning.runs.folder import CONFIG


class RunConfig(SaveConfigCallback):
    """Writes the whole configuration to the run's folder, and to loggers that take it."""

    def __init__(self, parser: LightningArgumentParser, config: Any, run_dir: Path) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.run_dir = run_dir

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once, on rank zero."""
        path = self.run_dir / CONFIG
        if not path.exists():
            self.parser.save(self.config, path, skip_none=False)
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams(config)
