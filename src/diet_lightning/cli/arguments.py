"""Argument lists as people write them, made such as the parsers read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from diet_lightning.cli.usage import UsageError
from diet_lightning.runs.folder import CONFIG, find_checkpoint, run_dir_of

CONFIG_OPTIONS = ("-c", "--config")
# every other option of a Trainer command takes one value
WITHOUT_VALUE = ("-h", "--help", "--help_all", "--print_config")


def underscored(args: Sequence[str]) -> list[str]:
    """Options with underscores in place of dashes, as parameters are called: ``--run-dir=a-b`` → ``--run_dir=a-b``."""
    names = (arg.partition("=") for arg in args)
    return [
        f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else name + equals + value
        for name, equals, value in names
    ]


def shipped_configs() -> dict[str, Path]:
    """Name → file of the configurations that the package ships."""
    folder = Path(str(resources.files("diet_lightning"))) / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _options(args: Sequence[str]) -> Iterator[tuple[int, int, str, str | None]]:
    """Position, number of arguments, name and value of each option; an argument that is none has the name ""."""
    n = 0
    while n < len(args):
        name, equals, value = args[n].partition("=")
        if not name.startswith("-"):
            yield n, 1, "", args[n]
        elif equals or name in WITHOUT_VALUE or n + 1 == len(args):
            yield n, 1, name, value if equals else None
        else:
            yield n, 2, name, args[n + 1]
            n += 1
        n += 1


def trainer_arguments(args: Sequence[str]) -> list[str]:
    """Arguments of ``fit``, ``validate``, ``test`` or ``predict``, command first, as Lightning's parser reads them.

    Args:
        args: As written: options with dashes or underscores, ``--config NAME`` of a shipped configuration, and of all but
            ``fit`` the folder or checkpoint of a run, which stands for its checkpoint, its configuration and where it is
            now.

    Returns:
        The arguments. ``fit`` alone is given the configuration ``digits``.

    Raises:
        CheckpointError: If the run has no checkpoint.
        UsageError: For several runs, or a configuration that does not exist.
    """
    command, *rest = underscored(args)
    if args == ["fit"]:
        rest = ["--config", "digits"]
    rest = _with_configs(command, rest)
    return [command, *(_with_checkpoint_config(rest) if command == "fit" else _with_run(command, rest))]


def _with_configs(command: str, args: list[str]) -> list[str]:
    shipped = shipped_configs()
    found: list[str] = []
    for n, count, name, value in _options(args):
        if name not in CONFIG_OPTIONS or not value or Path(value).is_file():
            found += args[n : n + count]
        elif value in shipped:  # also where a folder of this name holds data
            found.append(f"--config={shipped[value]}")
        else:
            raise UsageError(
                f"Configuration '{value}' does not exist: give a YAML file or one of {', '.join(shipped)}.", command
            )
    return found


def _with_run(command: str, args: list[str]) -> list[str]:
    """The checkpoint of the run that is named among the arguments, which may be anywhere."""
    given = list(_options(args))
    if any(name == "--ckpt_path" for _, _, name, _ in given):
        raise UsageError(f"Option --ckpt_path is now given without its name: diet {command} RUN.", command)
    runs = [value for _, _, name, value in given if not name and value is not None]
    if len(runs) > 1:
        raise UsageError(f"Expected one run, but got {', '.join(runs)}.", command)
    others = [arg for n, count, name, _ in given if name for arg in args[n : n + count]]
    if not runs or not {"-h", "--help", "--help_all"}.isdisjoint(others):
        return others
    return _with_checkpoint_config([*others, f"--ckpt_path={find_checkpoint(runs[0])}"])


def _with_checkpoint_config(args: list[str]) -> list[str]:
    """A checkpoint alone is enough: its run's own configuration is read where none is given."""
    values = {name: value for _, _, name, value in _options(args)}
    checkpoint = values.get("--ckpt_path")
    if checkpoint and values.keys().isdisjoint(CONFIG_OPTIONS):
        folder = run_dir_of(checkpoint)
        if (folder / CONFIG).is_file():
            # where the run is now, which may have moved since its configuration was written
            return [f"--config={folder / CONFIG}", f"--run_dir={folder}", *args]
    return args
