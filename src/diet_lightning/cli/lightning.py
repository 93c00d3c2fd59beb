"""`diet fit | validate | test | predict`: Lightning's command line over DIETModule and DIETDataModule."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from rich.console import Console

from diet_lightning.__about__ import __version__
from diet_lightning.callbacks import (
    EmbeddingWriter,
    FitProgressBar,
    LastBlocks,  # noqa: F401  a configuration may call a callback by its class alone: it is looked for among what is imported
    OfflineEvaluation,
    OnlineKNN,  # noqa: F401
    OnlineLinearProbe,
    default_callbacks,
)
from diet_lightning.cli.arguments import with_named_configs, with_run_config
from diet_lightning.cli.metrics_table import metrics_table
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.runs.checkpoint import LeanCheckpointIO, read_checkpoint
from diet_lightning.runs.folder import CONFIG, claim_run_dir, create_run_dir, run_dir_of
from diet_lightning.runs.metrics import run_logger
from diet_lightning.training.module import DIETModule
from diet_lightning.training.supervised import SupervisedModule

RUN_DIR_VARIABLE = "DIET_RUN_DIR"  # tells the processes of one run the folder that the first of them chose


def make_module(
    backbone: str = "resnet18", supervised: bool = False, num_classes: int | None = None, **settings: Any
) -> DIETModule:
    """Self-supervised learning with the datum index as target (DIET).

    A command line names its backbone; with modules allowed, the help would list every `torch.nn.Module`.

    Args:
        backbone: "resnet8" (tiny images), "resnet8_w64" (of another width), the name of a torchvision classification
            model, "timm/NAME", or a folder of `diet export`.
        supervised: Train on the labels instead, a baseline of the same network, data and budget; see `SupervisedModule`.
        num_classes: Number of classes of a supervised run; None reads it from the data.
        **settings: As for `DIETModule`.

    Returns:
        The module.
    """
    if supervised:
        return SupervisedModule(backbone, num_classes, **settings)
    return DIETModule(backbone, **settings)


TENSORBOARDS = ("tensorboard", "tensorboardX")  # packages, of which Lightning's logger needs one


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


class DIETCLI(LightningCLI):
    """LightningCLI with a folder per run, N linked from the data, and the callbacks that a run needs."""

    run_dir: Path

    def __init__(self, args: list[str], held: ExitStack) -> None:
        self._asked = args[0] if args else ""
        self._held = held  # what is given back when the run has ended
        super().__init__(
            make_module,
            DIETDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"max_epochs": 100},
            parser_kwargs={
                "prog": "diet",
                "version": __version__,
                "description": "DIET: self-supervised learning with the datum index as target. `diet fit` alone trains on "
                "embedded digits; `diet demo` also shows what the features are worth, `diet bill` what the head will take of "
                "memory; of finished runs, `diet compare` ranks several without labels, `diet audit` looks through the data of "
                "one, and `diet export` writes its backbone for other programs.",
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Lightning's four, or of them the one that is asked for, as building a parser takes its time.

        Checkpoints never run code, and predictions go to a file.
        """
        fixed = {"weights_only", "return_predictions"}
        every = {name: skipped | fixed for name, skipped in LightningCLI.subcommands().items()}
        return {self._asked: every[self._asked]} if self._asked in every else every

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses `args` alone; Lightning's own version warns of every argument list that is passed from Python."""
        self.config = parser.parse_args(args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's own options and ties the data to the model."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of the run: config, metrics, checkpoints, figure. None makes one below runs/.",
        )
        parser.add_argument(
            "--save_every_n_epochs", type=int, default=1, help="Epochs between checkpoints; the last one is kept."
        )
        parser.add_class_arguments(OnlineLinearProbe, "probe")
        parser.set_defaults({"probe.enabled": None})
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed)
        parser.link_arguments("data.num_samples", "model.num_samples", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "test":
            parser.add_class_arguments(OfflineEvaluation, "offline")
            parser.set_defaults({"offline.enabled": None})
        elif subcommand == "predict":
            parser.add_argument(
                "--output",
                type=str | None,
                default=None,
                help="File of the embeddings: .npz, .parquet or .safetensors. None for embeddings.npz in the run's folder.",
            )
        return parser

    def _parse_ckpt_path(self) -> None:
        # replaces Lightning's, whose checkpoint values override the command line's even where N is linked
        path = self._get_parsed("ckpt_path")
        if path is None:
            return
        saved = read_checkpoint(path)
        hparams = saved.get("hyper_parameters", {})
        if "backbone" not in hparams:
            raise CheckpointError(
                f"Checkpoint '{path}' was trained in Python with a backbone of its own: load it there, by "
                "DIETModule.load_from_checkpoint(path, backbone=...)."
            )
        model = self.config[self.config.subcommand].model
        model.weights = None  # the checkpoint's are taken
        if self.config.subcommand != "fit":
            model.supervised = saved.get("target") == SupervisedModule.target
            values = {**hparams, **{f"head.{name}": value for name, value in hparams["head"].items()}}
            for name in values.keys() & set(model.keys()) - {"num_samples"}:
                model[name] = values[name]

    def _get_parsed(self, key: str) -> Any:
        return self.config[self.config.subcommand].get(key)

    def before_instantiate_classes(self) -> None:
        """Claims the run's folder before any data are read."""
        config = self.config[self.subcommand]
        path = config.get("ckpt_path")
        # only a process that a run has launched is of that run, not every program that a run starts
        launched = os.environ.get(RUN_DIR_VARIABLE) if "LOCAL_RANK" in os.environ else None
        claims = self.subcommand == "fit" and not config.trainer.fast_dev_run
        chosen = launched or config.run_dir
        named = [str(getattr(logger, "class_path", "")) for logger in _as_list(config.trainer.logger)]
        if any(name.endswith("TensorBoardLogger") for name in named) and not any(map(find_spec, TENSORBOARDS)):
            raise ConfigurationError("TensorBoardLogger needs TensorBoard: pip install 'diet-lightning[tensorboard]'.")
        if chosen is None and path is not None:
            chosen = run_dir_of(path)
        elif chosen is None:
            create = rank_zero_only(create_run_dir)
            chosen = (create(config.data.source, config.model.backbone) if claims else None) or Path()
        self.run_dir = Path(chosen)
        self.resumed = path is not None and run_dir_of(path) == self.run_dir.resolve()
        if claims:
            if lock := rank_zero_only(claim_run_dir)(self.run_dir, self.resumed):
                self._held.callback(lock.release)
            os.environ[RUN_DIR_VARIABLE] = str(self.run_dir)
        config.run_dir = str(self.run_dir)
        for logger in _as_list(config.trainer.logger):
            settings = getattr(logger, "init_args", {})
            if "save_dir" in settings and settings["save_dir"] in (None, "."):
                settings["save_dir"] = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the Trainer the run's callbacks and loggers, beside the user's."""
        config = self._get(self.config_init, "trainer")
        probe = self._get(self.config_init, "probe")
        callbacks: list[Callback] = _as_list(config.callbacks)
        options: dict[str, Any] = {"default_root_dir": str(self.run_dir), "enable_autolog_hparams": False, **kwargs}
        options["logger"] = False
        plugins = _as_list(config.plugins)
        if not any(isinstance(each, CheckpointIO) for each in plugins):
            options["plugins"] = [*plugins, LeanCheckpointIO()]
        progress_bar = config.enable_progress_bar is not False and not any(
            isinstance(x, ProgressBar) for x in callbacks
        )
        if config.fast_dev_run:
            callbacks += [probe, *([FitProgressBar()] if progress_bar else [])]
        else:
            every = self._get_parsed("save_every_n_epochs")
            callbacks += default_callbacks(self.run_dir, probe, every, progress_bar)
        if self.subcommand == "fit" and not config.fast_dev_run:
            step = read_checkpoint(self._get_parsed("ckpt_path"))["global_step"] if self.resumed else None
            options["logger"] = [run_logger(self.run_dir, step), *_as_list(config.logger)]
            callbacks += [
                LearningRateMonitor(),
                RunConfig(self._parser(self.subcommand), self.config[self.subcommand], self.run_dir),
            ]
        elif self.subcommand == "test":
            callbacks.append(self._get(self.config_init, "offline"))
            options["logger"] = _as_list(config.logger) or False  # the evaluation's figures go there
        elif self.subcommand == "predict":
            output = self._get_parsed("output")
            if output is not None or not any(isinstance(each, EmbeddingWriter) for each in callbacks):
                callbacks.append(EmbeddingWriter(output))
        return super().instantiate_trainer(callbacks=callbacks, **options)

    def fit(self, **kwargs: Any) -> None:
        """Trains; checkpoints are read without running code."""
        self.trainer.fit(weights_only=True, **kwargs)

    def validate(self, **kwargs: Any) -> None:
        """Measures on the validation split."""
        self._evaluate(self.trainer.validate, **kwargs)

    def test(self, **kwargs: Any) -> None:
        """Measures on the test split, with probes on the frozen embeddings."""
        verbose = kwargs.pop("verbose", True)  # Lightning's table has a row of digits for each end of an interval
        self._evaluate(self.trainer.test, verbose=False, **kwargs)
        if verbose and self.trainer.is_global_zero:
            Console().print(metrics_table(self.trainer.callback_metrics))

    def predict(self, **kwargs: Any) -> None:
        """Writes embeddings to the run's folder."""
        self._evaluate(self.trainer.predict, return_predictions=False, **kwargs)

    @staticmethod
    def _evaluate(run: Callable[..., Any], **kwargs: Any) -> None:
        with warnings.catch_warnings():
            # ModelCheckpoint's remark on a checkpoint that was moved; nothing is saved here
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            run(weights_only=True, **kwargs)

    def after_fit(self) -> None:
        """Says where everything is."""
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.endswith(("loss_gap", "_top1"))}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        rank_zero_info(f"Finished: {shown}\nRun folder: {self.run_dir}")


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list) else [value]


def _data_seed(seed: bool | int) -> int:
    return 0 if isinstance(seed, bool) else seed


def run_lightning(args: Sequence[str]) -> DIETCLI:
    """Runs ``diet fit | validate | test | predict``.

    Args:
        args: The command line's arguments.

    Returns:
        The finished command line, with its ``trainer``, ``model``, ``datamodule`` and ``run_dir``.

    Raises:
        DIETError: For input that cannot be served.
    """
    set_parsing_settings(add_print_completion_argument=True)
    try:
        with ExitStack() as held:
            return DIETCLI(with_run_config(with_named_configs(args)), held)
    finally:
        os.environ.pop(RUN_DIR_VARIABLE, None)
