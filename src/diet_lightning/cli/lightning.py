"""`diet fit | validate | test | predict`: Lightning's command line for DIETModule and DIETDataModule."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from diet_lightning.callbacks import (
    EmbeddingWriter,
    FitProgressBar,
    LastBlocks,  # noqa: F401  a configuration may call a callback by its class alone: it is looked for among what is imported
    OfflineEvaluation,
    OnlineKNN,  # noqa: F401
    OnlineLinearProbe,
    default_callbacks,
)
from diet_lightning.cli.arguments import trainer_arguments
from diet_lightning.cli.usage import usage_error
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.runs.checkpoint import LeanCheckpointIO, read_checkpoint
from diet_lightning.runs.folder import CONFIG, claim_run_dir, create_run_dir, run_dir_of
from diet_lightning.runs.metrics import is_accuracy, run_logger
from diet_lightning.training.module import DIETModule
from diet_lightning.training.supervised import SupervisedModule
from diet_lightning.utilities.processor import multiplies_bf16

TENSORBOARDS = ("tensorboard", "tensorboardX")  # packages, of which Lightning's logger needs one
RUN_DIR_VARIABLE = "DIET_RUN_DIR"  # tells the processes of one run the folder that the first of them chose


def make_module(
    backbone: str = "resnet18", supervised: bool = False, num_classes: int | None = None, **settings: Any
) -> DIETModule:
    """Self-supervised learning with the datum index as target (DIET).

    The backbone is a name: with modules allowed, the help would list every `torch.nn.Module`.

    Args:
        backbone: "resnet8" (tiny images), "resnet8_w64" (of another width), the name of a torchvision classification
            model, "timm/NAME", or a folder of `diet export`.
        supervised: Train on the labels instead, a baseline of the same network, data and budget; see `SupervisedModule`.
        num_classes: Number of classes of a supervised run; None reads it from the data.
        **settings: As for `DIETModule`.
    """
    if supervised:
        return SupervisedModule(backbone, num_classes, **settings)
    return DIETModule(backbone, **settings)


class DIETCLI(LightningCLI):
    """LightningCLI with a folder per run, N linked from the data, and the callbacks that a run needs."""

    run_dir: Path
    command_parser: LightningArgumentParser

    def __init__(self, args: list[str], held: ExitStack) -> None:
        self._asked = args[0]
        self._held = held  # closed when the run has ended; holds the lock of its folder
        super().__init__(
            make_module,
            DIETDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 100},
            parser_kwargs={"prog": "diet", "exit_on_error": False, self._asked: {"exit_on_error": False}},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The requested one of Lightning's four, since building a parser takes time.

        Checkpoints never run code, and predictions go to a file.
        """
        return {self._asked: LightningCLI.subcommands()[self._asked] | {"weights_only", "return_predictions"}}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses `args` alone, and takes the network's options from the checkpoint.

        Lightning's own version warns of every argument list that is passed from Python, and lets values of the checkpoint
        override the command line's even where N is linked.
        """
        try:
            self.config = parser.parse_args(["--help" if arg == "--help_all" else arg for arg in args])
        except ArgumentError as error:
            options = [f"--{name}" for name in self.command_parser.get_defaults().keys()]  # noqa: SIM118  a namespace
            raise usage_error(str(error), self._asked, options) from error
        config = self.config[self._asked]
        # kept from Lightning's own reading of checkpoints, which comes next
        self._checkpoint, config.ckpt_path = config.ckpt_path, None
        if self._checkpoint is not None:
            self._take_hyperparameters(self._checkpoint, config.model)

    def _take_hyperparameters(self, checkpoint: str, model: Namespace) -> None:
        saved = read_checkpoint(checkpoint)
        hparams = saved.get("hyper_parameters", {})
        if "backbone" not in hparams:
            raise CheckpointError(
                f"Checkpoint '{checkpoint}' was trained in Python with a custom backbone: load it there, by "
                "DIETModule.load_from_checkpoint(path, backbone=...)."
            )
        model.weights = None  # the checkpoint's are taken
        if self._asked != "fit":
            model.supervised = saved.get("target") == SupervisedModule.target
            values = {**hparams, **{f"head.{name}": value for name, value in hparams["head"].items()}}
            for name in values.keys() & set(model.keys()) - {"num_samples"}:
                model[name] = values[name]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of a run and links the model to the data; called for the requested command."""
        self.command_parser = parser
        parser.usage = f"diet {self._asked}{'' if self._asked == 'fit' else ' [RUN]'} [options]"
        parser.add_argument(
            "--run_dir",
            type=str | None,
            help="Folder of the run: config, metrics, checkpoints, figure. None makes one below runs/.",
        )
        parser.add_argument(
            "--save_every_n_epochs", type=int, default=1, help="Epochs between checkpoints; the last one is kept."
        )
        parser.add_class_arguments(OnlineLinearProbe, "probe")
        parser.set_defaults({"probe.enabled": None})
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed)
        parser.link_arguments("data.num_samples", "model.num_samples", apply_on="instantiate")
        if self._asked == "test":
            parser.add_class_arguments(OfflineEvaluation, "offline")
            parser.set_defaults({"offline.enabled": None})
        elif self._asked == "predict":
            parser.add_argument(
                "--output",
                type=str | None,
                help="File of the embeddings: .npz, .parquet or .safetensors. None for embeddings.npz in the run's folder.",
            )

    def before_instantiate_classes(self) -> None:
        """Claims the run's folder before any data are read."""
        config = self.config[self._asked]
        path = config.ckpt_path = self._checkpoint
        loggers = _as_list(config.trainer.logger)
        uses_tensorboard = any(logger.class_path.endswith("TensorBoardLogger") for logger in loggers)
        if uses_tensorboard and not any(map(find_spec, TENSORBOARDS)):
            raise ConfigurationError("TensorBoardLogger needs TensorBoard: pip install 'diet-lightning[tensorboard]'.")
        # only processes that Lightning has launched belong to this run; other programs may inherit the variable too
        launched = os.environ.get(RUN_DIR_VARIABLE) if "LOCAL_RANK" in os.environ else None
        claims = self._asked == "fit" and not config.trainer.fast_dev_run
        chosen = launched or config.run_dir or (path and run_dir_of(path))
        if claims and not chosen:
            chosen = rank_zero_only(create_run_dir)(config.data.source, config.model.backbone)
        self.run_dir = Path(chosen or "")
        self.resumed = path is not None and run_dir_of(path) == self.run_dir.resolve()
        if claims:
            if lock := rank_zero_only(claim_run_dir)(self.run_dir, self.resumed):
                self._held.callback(lock.release)
            os.environ[RUN_DIR_VARIABLE] = str(self.run_dir)
        config.run_dir = str(self.run_dir)
        if self._asked == "fit" and path is None:
            self._choose_precision(config.trainer)
        for logger in loggers:
            if logger.get("init_args.save_dir", "chosen") in (None, "."):
                logger.init_args.save_dir = str(self.run_dir)

    @staticmethod
    def _choose_precision(trainer: Namespace) -> None:
        """bf16-mixed for a new run on a processor that multiplies in it, if no precision was given."""
        accelerators = ("cpu",) if torch.accelerator.is_available() else ("cpu", "auto")
        if trainer.precision is None and trainer.accelerator in accelerators and multiplies_bf16():
            trainer.precision = "bf16-mixed"
            rank_zero_info(
                "This processor multiplies in bf16, so trainer.precision is bf16-mixed; 32-true computes in 32."
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the Trainer the run's callbacks and loggers, beside the user's."""
        chosen = self.config_init[self._asked]
        config = chosen.trainer
        callbacks: list[Callback] = _as_list(config.callbacks)
        plugins = _as_list(config.plugins)
        if not any(isinstance(each, CheckpointIO) for each in plugins):
            plugins.append(LeanCheckpointIO())
        options = {"default_root_dir": str(self.run_dir), "enable_autolog_hparams": False, "logger": False, **kwargs}
        has_bar = any(isinstance(each, ProgressBar) for each in callbacks)
        progress_bar = config.enable_progress_bar is not False and not has_bar
        if config.fast_dev_run:
            callbacks += [chosen.probe, *([FitProgressBar()] if progress_bar else [])]
        else:
            callbacks += default_callbacks(self.run_dir, chosen.probe, chosen.save_every_n_epochs, progress_bar)
        if self._asked == "fit" and not config.fast_dev_run:
            step = read_checkpoint(self._checkpoint)["global_step"] if self.resumed else None
            options["logger"] = [run_logger(self.run_dir, step), *_as_list(config.logger)]
            callbacks += [LearningRateMonitor(), RunConfig(self.command_parser, self.config[self._asked], self.run_dir)]
        elif self._asked == "test":
            callbacks.append(chosen.offline)
            options["logger"] = _as_list(config.logger) or False  # the evaluation's figures go there
        elif self._asked == "predict" and (chosen.output or not any(isinstance(c, EmbeddingWriter) for c in callbacks)):
            callbacks.append(EmbeddingWriter(chosen.output))
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **options)

    def fit(self, **kwargs: Any) -> None:
        """Trains; as in the other commands, no code of a checkpoint is run."""
        self.trainer.fit(weights_only=True, **kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Measures on the validation split."""
        self.trainer.validate(weights_only=True, **kwargs)

    def test(self, verbose: bool = True, **kwargs: Any) -> None:
        """Measures on the test split, with probes on the frozen embeddings."""
        # without Lightning's table, which has a row for each end of an interval
        self.trainer.test(weights_only=True, verbose=False, **kwargs)
        if verbose and self.trainer.is_global_zero:
            Console().print(_metrics_table(self.trainer.callback_metrics))

    def predict(self, **kwargs: Any) -> None:
        """Writes embeddings to the run's folder."""
        self.trainer.predict(weights_only=True, return_predictions=False, **kwargs)

    def after_fit(self) -> None:
        """Reports the last metrics and the run's folder."""
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.endswith(("loss_gap", "_top1"))}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        rank_zero_info(f"Finished: {shown}\nRun folder: {self.run_dir}")


class RunConfig(SaveConfigCallback):
    """Writes the whole configuration to the run's folder, and to the loggers other than ``metrics.csv``."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, run_dir: Path) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.path = run_dir / CONFIG

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once, on rank zero."""
        if not self.path.exists():
            self.parser.save(self.config, self.path, skip_none=False)
        values = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):
                logger.log_hyperparams(values)


def _metrics_table(metrics: Mapping[str, Tensor]) -> Table:
    """A row per metric: accuracies in per cent; values under ``NAME_low`` and ``NAME_high`` are the ends of its interval."""
    columns = (Column("metric", overflow="fold"), *(Column(name, justify="right") for name in ("value", "interval")))
    table = Table(*columns, title="Test metrics")
    ends = ("_low", "_high")
    for name, value in metrics.items():
        if not name.endswith(ends):
            form = "{:.1%}" if is_accuracy(name) else "{:.4g}"
            interval = [form.format(float(metrics[name + end])) for end in ends if name + end in metrics]
            table.add_row(name, form.format(float(value)), " to ".join(interval))
    return table


def _as_list(value: Any) -> list[Any]:
    if value in (None, True, False):
        return []
    return list(value) if isinstance(value, list) else [value]


def _data_seed(seed: bool | int) -> int:
    return seed if type(seed) is int else 0


def run_lightning(args: Sequence[str]) -> DIETCLI:
    """Runs ``diet fit | validate | test | predict``; `args` begin with one of these.

    Returns:
        The finished command line, with its ``trainer``, ``model``, ``datamodule`` and ``run_dir``.

    Raises:
        DIETError: For input that cannot be served.
    """
    try:
        with ExitStack() as held, warnings.catch_warnings():
            if args[0] != "fit":  # ModelCheckpoint's warning of a checkpoint that was moved; nothing is saved there
                warnings.filterwarnings("ignore", message="The dirpath has changed")
            return DIETCLI(trainer_arguments(args), held)
    finally:
        os.environ.pop(RUN_DIR_VARIABLE, None)
