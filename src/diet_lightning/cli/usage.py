"""Usage errors: what the parsers say, in one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from diet_lightning.errors import DIETError

# option that was renamed → what it is now
OLD_NAMES = {
    "--false_discoveries": "--fdr",
    "--model.placement": "--model.head.kind",
    "--model.num_sampled": "--model.head.num_sampled",
    "--model.head_on_cpu": "--model.head.on_cpu",
    "--model.head_lr": "--model.head.lr",
    "--model.head_weight_decay": "--model.head.weight_decay",
    "--model.moment_bits": "--model.head.moment_bits",
    "--model.eps": "--model.head.eps",
    "--model.normalize_features": "--model.head.normalize_features",
    "--model.normalize_rows": "--model.head.normalize_rows",
    "--model.temperature": "--model.head.temperature",
    "--model.target": "--model.supervised",
    "--data.ranges": "--data.augmentation",
    "--offline.draws": "--offline.num_trials",
}


class UsageError(DIETError):
    """A command line that cannot be parsed; `help` is the command that prints the valid options."""

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.help = f"diet {command} --help" if command else "diet --help"


def usage_error(message: str, command: str, options: Collection[str]) -> UsageError:
    """The error to raise for a message of jsonargparse, which may have many lines; `options` begin with their dashes."""
    return UsageError(_sentence(message, options), command)


def _sentence(message: str, options: Collection[str]) -> str:
    if found := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
        words = found[1].split()
        unknown = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
        return f"Unexpected argument '{words[0]}'." if unknown is None else unknown_option(unknown, options)
    if found := re.match(r"Subcommand '\w+' does not accept option '(.+)'", message):
        return f"In the configuration: {unknown_option(f'--{found[1]}', options)}"
    if found := re.match(r"argument (\S+): expected one argument", message):
        return f"Option {found[1]} needs a value."
    if found := re.search(r"(?:arguments are required: |Key \")([\w, .]+)(?:\" is required)?", message):
        names = found[1].split(", ")
        shown = [f"--{name}" if f"--{name}" in options else name.removesuffix("s").upper() for name in names]
        return f"Missing argument: {', '.join(shown)}."
    if found := re.match(r'Parser key "(.+?)":', message):
        return _wrong_value(f"--{found[1]}", message[found.end() :])
    return " ".join(message.split())


def unknown_option(option: str, options: Collection[str]) -> str:
    """The sentence on an option that is not among the `options` of a command."""
    if option in OLD_NAMES:
        return f"Option {option} is now called {OLD_NAMES[option]}."
    # by the name alone, whatever its group: groups make different options look alike
    names = {known: known.lstrip("-").rpartition(".")[2] for known in options}
    close = difflib.get_close_matches(option.lstrip("-").rpartition(".")[2], names.values(), n=1)
    same_name = [known for known, name in names.items() if name in close]
    best = max(same_name, key=lambda known: difflib.SequenceMatcher(None, option, known).ratio(), default=None)
    return f"Unknown option {option}{f': did you mean {best}?' if best else '.'}"


def _wrong_value(option: str, body: str) -> str:
    """What was expected of an option, of all types that it might have, and what came."""
    types = dict.fromkeys(re.findall(r"Expected an? (?!path but)(.+?)(?:\. Got value: .*)?$", body, re.MULTILINE))
    value = re.search(r"G(?:iven|ot) value: (.*)$", body, re.MULTILINE)
    problem = re.search(r"- (Problem with .*(?:\n.*)?)", body)  # of a class's own options
    if problem or not types or value is None:
        return f"Option {option}: {' '.join((problem[1] if problem else body).split())}"
    return f"Expected option {option} to be {' or '.join(map(_type_name, types))}, but got {value[1]!r}."


def _type_name(text: str) -> str:
    """``<class 'int'>`` → ``int``, ``typing.Literal['a', 'b']`` → ``one of 'a', 'b'``, ``<class 'NoneType'>`` → ``null``."""
    if text.startswith("dot import path"):
        return "the name of a class"
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    return re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", text).replace("NoneType", "null")
