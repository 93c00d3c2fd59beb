"""One screen of help for the commands that have more options than fit on one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

from diet_lightning.cli import COMMANDS, TRAINER_COMMANDS
from diet_lightning.cli.arguments import shipped_configs

WIDTH = 80
RUN = "Folder of a run, or a .ckpt file: its network and settings are taken. Without it, those of an untrained run."
SOURCE = "The data: digits, folder:PATH, torchvision:NAME, hf:NAME or npz:FILE."
# option → an example of its value, and what it means
OPTIONS = {
    "config": (
        "cifar10",
        f"Settings: a YAML file or one of {', '.join(shipped_configs())}; may be given several times, the last wins",
    ),
    "data.source": ("folder:photos", "digits, folder:PATH, csv:FILE, torchvision:NAME, hf:NAME or npz:FILE"),
    "model.backbone": ("resnet50", "resnet8, a torchvision model, timm/NAME, or a folder of `diet export`"),
    "trainer.max_epochs": ("300", "Number of epochs"),
    "data.batch_size": ("128", "Samples per step and device"),
    "data.image_size": ("96", "Height and width that images are resized to; null keeps them"),
    "model.lr": ("4e-3", "Learning rate at a total batch of 256, scaled with the batch"),
    "model.label_smoothing": ("0.4", "In [0, 1); the larger, the faster the convergence"),
    "run_dir": ("runs/photos", "Folder of the run; null for a new one below runs/, or that of RUN"),
    "trainer.precision": ("bf16-mixed", "Precision of the computation; null for 32 bits"),
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
    "data.download": ("true", "Let torchvision download what is missing"),
    "data.read.layout": ("flat", "What folders mean: auto, classes, flat (no labels) or splits"),
    "data.read.channels": ("last", "Position of the channels in arrays: auto, first or last"),
    "data.read.color": ("gray", "Channels of images: rgb, gray or auto"),
    "data.read.background": ("black", "Color behind transparent pixels"),
    "data.read.value_range": ("[0,4095]", "Values that become 0 and 1; null takes them from the data"),
    "data.read.pages": ("channels", "Pages of a file that are read: first, or channels for all"),
}
_EVALUATION = ("config", "data.source", "data.batch_size", "run_dir", "trainer.precision", "trainer.devices")
SHOWN = {
    "fit": tuple(OPTIONS)[: list(OPTIONS).index("ckpt_path") + 1],
    "validate": _EVALUATION,
    "test": ("offline.baselines", "offline.k", "offline.shots", *_EVALUATION),
    "predict": ("output", "data.predict_split", *_EVALUATION),
    "data": ("data.output", "data.image_size", *tuple(OPTIONS)[list(OPTIONS).index("data.strength") :]),
}


def short_help(command: str, default_of: Callable[[str], Any]) -> str:
    """What ``diet COMMAND --help`` prints: the options that matter, in at most 45 lines of 80 characters.

    Args:
        command: ``fit``, ``validate``, ``test``, ``predict`` or ``data``, whose options have no group.
        default_of: Option, without its dashes → its default.
    """
    positional = {"fit": "", "data": " SOURCE"}.get(command, " [RUN]")
    lines = [f"usage: diet {command}{positional} [options]", "", *_wrapped(COMMANDS[command], "")]
    if positional:
        lines += ["", f"  {positional.strip(' []')}", *_wrapped(SOURCE if command == "data" else RUN)]
    lines += ["", "options, each with an example:"]
    for name in SHOWN[command]:
        example, text = OPTIONS[name]
        option = name.removeprefix("data.") if command == "data" else name
        default = default_of(option)
        shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
        lines += [f"  --{option} {example}", *_wrapped(f"{text} (default: {shown}).")]
    if command not in TRAINER_COMMANDS:
        return "\n".join([*lines, "", f"All options: diet {command} --help-all"])
    lines += ["", f"All options of data, model and Trainer: diet {command} --help-all"]
    lines += [f"All settings of a run as YAML: diet {command}{positional} [options] --print_config"]
    return "\n".join(lines)


def _wrapped(text: str, indent: str = " " * 6) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
