"""Commands beside Lightning's four: plain functions with typed arguments, one a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from jsonargparse import auto_cli

from diet_lightning.cli.arguments import named, underscored
from diet_lightning.cli.audit import audit
from diet_lightning.cli.compare import compare
from diet_lightning.cli.demo import demo
from diet_lightning.cli.export import export
from diet_lightning.cli.memory import bill

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "bill": bill,
    "compare": compare,
    "audit": audit,
    "export": export,
}


def run_command(args: Sequence[str]) -> None:
    """Runs a command.

    Args:
        args: Its name, then its arguments. Those before the first option are the function's first parameter; several,
            where that is a list.
    """
    command = COMMANDS[args[0]]
    leading = list(takewhile(lambda arg: not arg.startswith("-"), args[1:]))
    # --num-samples is --num_samples
    options = [arg if not arg.startswith("--") else underscored(arg) for arg in args[1 + len(leading) :]]
    auto_cli(command, args=named(command, leading) + options, as_positional=False, prog=f"diet {args[0]}")
