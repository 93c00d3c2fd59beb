"""Commands that are plain functions: their parsers are made from signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser

from diet_lightning.cli.arguments import underscored
from diet_lightning.cli.usage import usage_error


def function_of(command: str) -> Callable[..., Any]:
    """The function of a command: of the same name, in the module of the same name."""
    function: Callable[..., Any] = getattr(import_module(f"diet_lightning.cli.{command}"), command)
    return function


def run_function(command: str, function: Callable[..., Any], args: Sequence[str]) -> None:
    """Runs a function with the arguments of a command.

    Parameters without a default are positional, but for keyword-only ones; one of type list takes one or more arguments.
    Parameters of a function to which it passes ``**options`` are options too.

    Raises:
        UsageError: For an unknown option or value.
    """
    parser = make_parser(command, function)
    try:
        found = parser.parse_args(["--help" if arg == "--help_all" else arg for arg in underscored(args)])
    except ArgumentError as error:
        positional = positional_of(function)
        options = [f"--{name}" for name in parser.get_defaults().keys() if name not in positional]  # noqa: SIM118
        raise usage_error(str(error), command, options) from error
    function(**parser.instantiate_classes(found).as_dict())


def positional_of(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters that are given without their names."""
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def make_parser(command: str, function: Callable[..., Any]) -> ArgumentParser:
    """Makes the parser of a command that is a function."""
    documented = docstring_parser.parse(function.__doc__ or "")
    helps = {each.arg_name: each.description for each in documented.params}
    types = get_type_hints(function)
    parser = ArgumentParser(prog=f"diet {command}", description=documented.description, exit_on_error=False)
    usage, positional = [], positional_of(function)
    for name in positional:
        metavar, options = name.removesuffix("s").upper(), {"type": types[name]}
        usage.append(metavar)
        if get_origin(types[name]) is list:
            usage.append(f"[{metavar} ...]")
            options = {"type": get_args(types[name])[0], "nargs": "+"}
        parser.add_argument(name, metavar=metavar, help=helps.get(name), **options)
    parser.usage = " ".join(["%(prog)s", *usage, "[options]"])
    parser.add_function_arguments(function, as_group=False, skip=set(positional))
    return parser
