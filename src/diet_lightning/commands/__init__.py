"""Commands beside Lightning's four: plain functions with typed arguments, one a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import auto_cli

from diet_lightning.commands.bill import bill
from diet_lightning.commands.demo import demo

COMMANDS: dict[str, Callable[..., Any]] = {"demo": demo, "bill": bill}


def run_command(args: Sequence[str]) -> None:
    """Runs a command.

    Args:
        args: Its name, then its arguments.
    """
    # --num-samples is --num_samples
    options = [arg if not arg.startswith("--") else _underscored(arg) for arg in args[1:]]
    auto_cli(COMMANDS[args[0]], args=options, as_positional=False, prog=f"diet {args[0]}")


def _underscored(flag: str) -> str:
    name, equals, value = flag[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
