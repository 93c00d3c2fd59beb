"""A finished run, opened again: its checkpoint, its network and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.runs.checkpoint import read_checkpoint
from diet_lightning.runs.folder import CONFIG, find_checkpoint, read_config, run_dir_of
from diet_lightning.runs.record import RECORD, RunRecord
from diet_lightning.training.module import DIETModule
from diet_lightning.training.supervised import SupervisedModule

MODULES: dict[str, type[DIETModule]] = {each.target: each for each in (DIETModule, SupervisedModule)}


@dataclass(frozen=True)
class TrainedRun:
    """A run whose network is loaded. What it measured is a `RunResults`, which needs neither checkpoint nor Lightning.

    Attributes:
        folder: The run's folder.
        checkpoint: The checkpoint's file.
        module: The trained module, in eval mode on the CPU.
        record: Its ``run.json``: data, network, batch size and versions.
        config: The whole configuration of the run, as saved by `diet fit`; empty for a run without one.
        data_state: State of `DIETDataModule` in the checkpoint, such as ``mean`` and ``std``; empty for a run without one.
    """

    folder: Path
    checkpoint: Path
    module: DIETModule
    record: RunRecord
    config: Mapping[str, Any]
    data_state: Mapping[str, Any]

    def open_data(self, **changes: Any) -> DIETDataModule:
        """Opens the data of the run, with the normalisation of its training, and sets the data module up.

        `changes` are arguments of `DIETDataModule` in place of the run's own, such as a moved ``source``.

        Raises:
            ConfigurationError: If the run has no configuration, or it does not fit.
            DataError: If the data cannot be read.
        """
        settings = {**self.config.get("data", {}), **changes}
        if "source" not in settings or settings["source"] == "from_datasets":
            raise ConfigurationError(
                f"Run '{self.folder}' has no {CONFIG} that names its data, since it was not made by `diet fit`: use the "
                "functions in Python, with your own data module."
            )
        settings.setdefault("seed", int(self.config.get("seed_everything") or 0))
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(DIETDataModule, "data")
        try:
            data: DIETDataModule = parser.instantiate_classes(parser.parse_object({"data": settings})).data
        except ArgumentError as error:
            raise ConfigurationError(f"The data of run '{self.folder}' cannot be opened: {error}") from error
        data.setup()
        if self.data_state:
            data.load_state_dict(dict(self.data_state))
        return data


def open_run(run: str | Path) -> TrainedRun:
    """Opens a run by its folder or by a checkpoint, without running pickled code; only `TrainedRun.open_data` reads its data.

    Raises:
        CheckpointError: If the checkpoint is missing or without a network of `DIETModule`, or ``run.json`` is another run's.
        ConfigurationError: If ``run.json`` is missing or damaged.
    """
    file = find_checkpoint(run)
    saved = read_checkpoint(file)
    if not any(name.startswith("backbone.") for name in saved["state_dict"]):
        raise CheckpointError(f"Checkpoint '{file}' holds no backbone: it was not written by DIETModule.")
    folder = run_dir_of(file)
    record = RunRecord.read(folder)
    data_state = saved.get(DIETDataModule.__qualname__, {})
    if data_state and data_state["fingerprint"] != record.fingerprint:
        raise CheckpointError(
            f"The {RECORD} of run '{folder}' describes other training data than its checkpoint '{file.name}': one of them is "
            "another run's; restore it."
        )
    module_class = MODULES[saved.get("target", DIETModule.target)]
    module = module_class.load_from_checkpoint(file, map_location="cpu").eval()
    return TrainedRun(folder, file, module, record, read_config(folder), data_state)
