"""The help of one screen for every command, and the names of all options, kept in files so that neither loads the parsers.

    python -m diet_lightning.cli.help_screens

renews the files after a change of an option, a default or a docstring; a test compares them with the parsers.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from diet_lightning.cli import COMMANDS, HELP, TRAINER_COMMANDS
from diet_lightning.cli.arguments import shipped_configs
from diet_lightning.cli.functions import function_of, make_parser, positional_of, run_function
from diet_lightning.cli.lightning import run_lightning
from diet_lightning.utilities.files import write_json

WIDTH = 80
RUN = "Folder of a run, or a .ckpt file: its network and settings are used. Without it the network is untrained."
# option → an example of its value, and what it means
OPTIONS = {
    "config": (
        "cifar10",
        f"Settings: a YAML file or one of {', '.join(shipped_configs())}; if repeated, later ones override earlier ones",
    ),
    "data.source": ("folder:photos", "digits, folder:PATH, csv:FILE, torchvision:NAME, hf:NAME or npz:FILE"),
    "model.backbone": ("resnet50", "resnet8, a torchvision model, timm/NAME, or a folder of `diet export`"),
    "trainer.max_epochs": ("300", "Number of epochs"),
    "data.batch_size": ("128", "Samples per step and device"),
    "data.image_size": ("96", "Height and width that images are resized to; null keeps them"),
    "model.lr": ("4e-3", "Learning rate at a total batch of 256, scaled with the batch"),
    "model.label_smoothing": ("0.4", "In [0, 1); a larger value converges faster"),
    "run_dir": ("runs/photos", "Folder of the run; null for a new one below runs/, or that of RUN"),
    "trainer.precision": ("bf16-mixed", "Precision; null for 32 bits, or bf16-mixed if the CPU multiplies in bf16"),
    "trainer.devices": ("2", "Number of devices, or a list of their indices"),
    "ckpt_path": ("runs/photos/checkpoints/last.ckpt", "Checkpoint to resume from, in its run's folder"),
    "data.predict_split": ("test", "Split to embed: train, val or test"),
    "output": ("photos.npz", "File: .npz, .parquet or .safetensors; null for embeddings.npz in the run's folder"),
    "offline.baselines": ("true", "Also measure raw pixels and the untrained backbone"),
    "offline.k": ("10", "Number of nearest neighbours"),
    "offline.shots": ("[1,10]", "Numbers of labels per class to probe with"),
    "data.output": ("photos.png", "File of the picture"),
    "data.strength": ("1", "Augmentation, from 0 (none) to 3"),
    "data.drop_unreadable": ("true", "Leave out images that cannot be read"),
    "data.cache": ("decoded", "Folder of decoded images, which `diet fit` reads as well"),
    "data.download": ("true", "Download missing data of torchvision"),
    "data.read.layout": ("flat", "Meaning of folders: auto, classes, flat (no labels) or splits"),
    "data.read.channels": ("last", "Position of the channels in arrays: auto, first or last"),
    "data.read.color": ("gray", "Channels of images: rgb, gray, or auto"),
    "data.read.background": ("black", "Color behind transparent pixels"),
    "data.read.value_range": ("[0,4095]", "Values that become 0 and 1; null takes them from the data"),
    "data.read.pages": ("channels", "Pages of a file to read: first, or channels for all of them"),
}
_EVALUATION = ("config", "data.source", "data.batch_size", "run_dir", "trainer.precision", "trainer.devices")
SHOWN = {
    "fit": tuple(OPTIONS)[: list(OPTIONS).index("ckpt_path") + 1],
    "validate": _EVALUATION,
    "test": ("offline.baselines", "offline.k", "offline.shots", *_EVALUATION),
    "predict": ("output", "data.predict_split", *_EVALUATION),
    "data": ("data.output", "data.image_size", *tuple(OPTIONS)[list(OPTIONS).index("data.strength") :]),
}


def screen(command: str) -> str:
    """What ``diet COMMAND --help`` prints: at most 45 lines of 80 characters.

    Of the Trainer's commands and `data` it shows the options that matter, each with an example; of the others, all options.
    """
    return "\n".join(_trainer_lines(command) if command in TRAINER_COMMANDS else _function_lines(command)) + "\n"


def _trainer_lines(command: str) -> list[str]:
    run = "" if command == "fit" else " [RUN]"
    lines = [f"usage: diet {command}{run} [options]", "", *_wrapped(COMMANDS[command], "")]
    if run:
        lines += ["", "  RUN", *_wrapped(RUN)]
    defaults = yaml.safe_load(_printed(command, "--print_config"))
    lines += ["", "options, each with an example:"]
    for name in SHOWN[command]:
        value = defaults
        for key in name.split("."):
            value = value.get(key)  # None for `config`, which is not a setting
        lines += _option(name, *OPTIONS[name], value)
    lines += ["", f"All options of data, model and Trainer: diet {command} --help-all"]
    return [*lines, f"All settings of a run as YAML: diet {command}{run} [options] --print_config"]


def _function_lines(command: str) -> list[str]:
    function = function_of(command)
    parser = make_parser(command, function)
    documented = docstring_parser.parse(function.__doc__ or "")
    helps = {each.arg_name: each.description or "" for each in documented.params}
    lines = [parser.format_usage().rstrip()]
    for paragraph in (documented.description or "").split("\n\n"):
        lines += ["", *_wrapped(paragraph, "")]
    positional = positional_of(function)
    for name in positional:
        lines += ["", f"  {name.removesuffix('s').upper()}", *_wrapped(helps[name])]
    if command in SHOWN:
        lines += ["", "options, each with an example:"]
        for name in SHOWN[command]:
            option = name.removeprefix("data.")
            lines += _option(option, *OPTIONS[name], parser.get_default(option))
        return [*lines, "", f"All options: diet {command} --help-all"]
    options = {name: kind for name, kind in get_type_hints(function).items() if name in helps.keys() - {*positional}}
    if options:
        lines += ["", "options:"]
    for name, kind in options.items():
        default = inspect.signature(function).parameters[name].default
        lines += _option(name, _placeholder(kind), helps[name].rstrip("."), default)
    return lines


def _option(name: str, value: str, text: str, default: Any) -> list[str]:
    """Lines of an option; without a default it is required. The command line reads YAML, whose None is null."""
    known = {None: "null", True: "true", False: "false"}
    is_known = default is None or isinstance(default, bool)
    note = "required" if default is inspect.Parameter.empty else f"default: {known[default] if is_known else default}"
    return [f"  --{name} {value}", *_wrapped(f"{re.sub('None', 'null', text)} ({note}).")]


def _placeholder(kind: Any) -> str:
    """The placeholder of a value of a type: ``csv|parquet``, ``FLOAT``."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    return {int: "INT", float: "FLOAT"}.get(kind, "TEXT")


def _wrapped(text: str, indent: str = " " * 6) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def listed_options(command: str) -> list[str]:
    """The options that ``diet COMMAND --help-all`` lists."""
    # a short name may come first: "  -c CONFIG, --config CONFIG"
    found = re.findall(r"^  (?:-\w(?: \w+)?, )?(--[\w.]+)", _printed(command, "--help-all"), re.MULTILINE)
    return [*found, "--help_all"]


def _printed(command: str, option: str) -> str:
    """What a command's parser prints for an option, asked without `run_command`, which reads the files to be written."""
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        if command in TRAINER_COMMANDS:
            run_lightning([command, option])
        else:
            run_function(command, function_of(command), [option])
    return printed.getvalue()


def write() -> None:
    """Writes a screen for each command, and the options of all."""
    for command in COMMANDS:
        (HELP / f"{command}.txt").write_text(screen(command), encoding="utf-8")
    write_json(HELP / "options.json", {command: listed_options(command) for command in COMMANDS})


if __name__ == "__main__":
    write()
