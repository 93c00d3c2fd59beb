"""Translates argument lists as people write them into those that the parsers read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path

from diet_lightning.cli.usage import UsageError
from diet_lightning.data.path_hints import require_folder
from diet_lightning.runs.folder import CONFIG, find_checkpoint, run_dir_of

CONFIG_OPTIONS = ("-c", "--config")
HELP = ("-h", "--help", "--help_all")


def underscored(args: Sequence[str]) -> list[str]:
    """Options with underscores in place of dashes, as parameters are called: ``--run-dir=a-b`` → ``--run_dir=a-b``."""
    return [re.sub("^--[^=]+", lambda name: f"--{name[0][2:].replace('-', '_')}", arg) for arg in args]


def shipped_configs() -> dict[str, Path]:
    """Name → file of the configurations that the package ships."""
    folder = Path(str(resources.files("diet_lightning"))) / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def trainer_arguments(args: Sequence[str]) -> list[str]:
    """Arguments of ``fit``, ``validate``, ``test`` or ``predict``, command first, as Lightning's parser reads them.

    Args:
        args: As written: options with dashes or underscores, ``--config NAME`` of a shipped configuration, and for all but
            ``fit`` the folder or checkpoint of a run, which is replaced by its checkpoint, its configuration and its current
            folder. ``fit`` without arguments uses the configuration ``digits``.

    Raises:
        CheckpointError: If the run has no checkpoint.
        DataError: If the source is a folder that does not exist.
        UsageError: For several runs, or a configuration that does not exist.
    """
    command, *rest = underscored(args)
    if args == ["fit"]:
        rest = ["--config", "digits"]
    runs, written, values = [], [], {}
    for name, value, words in _options(rest):
        values[name] = value
        if name in CONFIG_OPTIONS and value and not Path(value).is_file():
            written.append(f"--config={_shipped_config(value, command)}")
        elif name or command == "fit":
            written += words
        else:
            runs.append(value)
    if command != "fit":
        if "--ckpt_path" in values:
            raise UsageError(f"Option --ckpt_path is now given without its name: diet {command} RUN.", command)
        if len(runs) > 1:
            raise UsageError(f"Expected one run, but got {', '.join(runs)}.", command)
        if runs and values.keys().isdisjoint(HELP):
            values["--ckpt_path"] = str(find_checkpoint(runs[0]))
            written.append(f"--ckpt_path={values['--ckpt_path']}")
    kind, _, path = values.get("--data.source", "").partition(":")
    if kind == "folder" and values.keys().isdisjoint((*HELP, "--print_config")):
        require_folder(path)
    return [command, *_run_settings(values), *written]


def _options(args: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Name, value and words of each option; a positional argument has the name ""."""
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if not name.startswith("-"):
            yield "", word, [word]
        elif equals or name in (*HELP, "--print_config"):
            yield name, value, [word]
        else:  # every other option of a Trainer command takes one value, which may have been forgotten
            following = list(islice(words, 1))
            yield name, "".join(following), [word, *following]


def _shipped_config(name: str, command: str) -> Path:
    shipped = shipped_configs()
    if name not in shipped:
        raise UsageError(
            f"Configuration '{name}' does not exist: give a YAML file or one of {', '.join(shipped)}.", command
        )
    return shipped[name]


def _run_settings(values: Mapping[str, str]) -> list[str]:
    """The configuration of a checkpoint's run, where none is given, and the folder, which may have moved since."""
    if values.get("--ckpt_path") and values.keys().isdisjoint(CONFIG_OPTIONS):
        folder = run_dir_of(values["--ckpt_path"])
        if (folder / CONFIG).is_file():
            return [f"--config={folder / CONFIG}", f"--run_dir={folder}"]
    return []
