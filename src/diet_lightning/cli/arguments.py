"""Argument lists as people write them, made such as the parsers read them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from diet_lightning.runs.folder import CONFIG, run_dir_of


def with_named_configs(args: Sequence[str]) -> list[str]:
    """Lets ``--config digits`` name a shipped file, and finds a run's own config beside its checkpoint."""
    args = list(args)
    if args == ["fit"]:
        args += ["--config", "digits"]
    shipped = resources.files("diet_lightning") / "configs"
    for n, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag not in ("--config", "-c"):
            continue
        name = value if equals else args[n + 1] if n + 1 < len(args) else ""
        file = shipped / f"{name}.yaml"
        if name and not Path(name).is_file() and file.is_file():  # a folder of this name holds data
            args[n : n + 1 if equals else n + 2] = [f"--config={file}"]
            return [*args[: n + 1], *with_named_configs(args[n + 1 :])]
    return args


def with_run_config(args: list[str]) -> list[str]:
    """A checkpoint alone is enough: its run's own config is read where none is given."""
    if any(arg.partition("=")[0] in ("--config", "-c") for arg in args):
        return args
    for n, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag == "--ckpt_path" and (equals or n + 1 < len(args)):
            folder = run_dir_of(value if equals else args[n + 1])
            if (folder / CONFIG).is_file():
                # where the run is now, which may have moved since its configuration was written
                return [args[0], f"--config={folder / CONFIG}", f"--run_dir={folder}", *args[1:]]
    return args


def named(command: Callable[..., Any], leading: list[str]) -> list[str]:
    """A command's leading arguments as the option of its first parameter; several as a list where it is one."""
    if not leading:
        return []
    name = next(iter(inspect.signature(command).parameters))
    if get_origin(get_type_hints(command)[name]) is list:
        return [f"--{name}={json.dumps(leading)}"]
    return [f"--{name}={leading[0]}", *leading[1:]]


def underscored(flag: str) -> str:
    """An option with underscores in place of its dashes, as parameters are called."""
    name, equals, value = flag[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
