"""`diet`: one file per command. What a command needs is imported when it runs, so that help and version take no time."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from diet_lightning.cli.usage import UsageError, unknown_option

TRAINER_COMMANDS = {
    "fit": "Train a backbone on a data set without its labels.",
    "validate": "Measure loss and online probe on the validation split.",
    "test": "Measure frozen embeddings on the test split: probes, nearest neighbours, figures.",
    "predict": "Write the embeddings of a split to a file.",
}
# each is the function of this name in the module of this name
FUNCTION_COMMANDS = {
    "data": "Show what a source holds, and draw training images as the network sees them.",
    "compare": "Rank finished runs by their training loss, without labels.",
    "audit": "Find hard samples, near-duplicates and likely label errors in a run's data.",
    "export": "Write the backbone of a run for other programs: safetensors, ONNX, timm.",
    "memory": "Estimate the memory that the head takes for a number of samples.",
    "demo": "Train on scikit-learn's digits and compare linear probes on the features.",
    "completion": "Print a completion script for bash or zsh.",
}
COMMANDS = {**TRAINER_COMMANDS, **FUNCTION_COMMANDS}
OLD_COMMANDS = {"bill": "memory"}
HELP = Path(__file__).parent / "help"  # written by `python -m diet_lightning.cli.help_screens`


def run_command(args: Sequence[str]) -> None:
    """Runs a command; `args` are its name and its arguments.

    Raises:
        DIETError: For input that cannot be served; `UsageError` for an unknown command, option or value.
    """
    name, *rest = args
    if name in COMMANDS and not {"-h", "--help"}.isdisjoint(rest):
        print((HELP / f"{name}.txt").read_text(encoding="utf-8"), end="")
    elif name in TRAINER_COMMANDS:
        from diet_lightning.cli.arguments import trainer_arguments

        trainer_arguments(args)  # for its errors, before imports that take seconds
        _check_options(name, rest)
        from diet_lightning.cli.lightning import run_lightning

        run_lightning(args)
    elif name in FUNCTION_COMMANDS:
        _check_options(name, rest)
        from diet_lightning.cli.functions import function_of, run_function

        run_function(name, function_of(name), rest)
    elif name in OLD_COMMANDS:
        raise UsageError(f"Command '{name}' is now called '{OLD_COMMANDS[name]}'.", OLD_COMMANDS[name])
    elif name.startswith("-"):
        raise UsageError(f"Expected a command, such as fit, but got the option {name}.")
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        raise UsageError(f"Unknown command '{name}'{f': did you mean {close[0]!r}?' if close else '.'}")


def overview() -> str:
    """What `diet --help` prints."""
    lines = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    return f"""\
usage: diet COMMAND [options]

Self-supervised learning with the datum index as target (DIET).

commands:
{lines}

  diet COMMAND --help   The options of a command; they take dashes or underscores.
  diet --version        The version.

examples:
  diet fit --config folder --data.source folder:photos --run_dir runs/photos
  diet test runs/photos"""


def all_options() -> dict[str, list[str]]:
    """Command → all its options."""
    options: dict[str, list[str]] = json.loads((HELP / "options.json").read_text(encoding="utf-8"))
    return options


def _check_options(command: str, args: Sequence[str]) -> None:
    """Raises an error for an option that no parser would know, so that a typing error is answered without loading one."""
    from diet_lightning.cli.arguments import underscored

    options = all_options()[command]
    for word in underscored(args):
        name = word.partition("=")[0].rstrip("+")
        # the Trainer's options depend on the release of Lightning and on the classes; the parsers read abbreviations too
        is_possible = name.startswith("--trainer.") or any(option.startswith(name) for option in options)
        if name.startswith("--") and not is_possible:
            raise UsageError(unknown_option(name, options), command)
