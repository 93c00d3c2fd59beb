"""Atomic writing of files, JSON, and errors of output paths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diet_lightning.errors import ConfigurationError


def partial_of(path: Path) -> Path:
    """The hidden sibling to which a file or folder is written until it is complete: ``run/a.npz`` → ``run/.a.npz.partial``."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Writes a file such that an interruption keeps the existing one; its folder is created if it is missing.

    Yields:
        A sibling to write to, which is renamed to the file at the end and removed after an exception.
    """
    partial = partial_of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def require_empty_dir(folder: Path) -> None:
    """Raises a `ConfigurationError` if an output folder is a file, or a folder that is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"Output folder '{folder}' exists and is not empty: move it, or choose another `output`."
        )


@contextmanager
def require_writable(what: str, argument: str = "output") -> Iterator[None]:
    """Turns an `OSError` into a `ConfigurationError` that names `what`, ``"Output file 'a.csv'"``, and the argument that sets it."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{what} cannot be written ({error.strerror or error}): choose another `{argument}`."
        ) from error


def write_json(file: Path, value: Any) -> None:
    """Writes plain values as JSON, atomically."""
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path, or_none: bool = False) -> Any:
    """Reads a JSON file. One that is missing or damaged raises an `OSError` or `ValueError`, or gives None with `or_none`."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if or_none:
            return None
        raise
