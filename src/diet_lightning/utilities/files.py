"""Atomic writing of files, and JSON."""

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
    """Writes a file such that an interruption keeps the existing one.

    Yields:
        A sibling to write to, which is renamed to the file at the end and removed after an exception.
    """
    partial = partial_of(file)
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


def write_json(file: Path, value: Any, indent: int | None = None) -> None:
    """Writes plain values as JSON, atomically: with `indent` spaces for each level and a line break at the end, or in one line."""
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(value, indent=indent) + ("" if indent is None else "\n"), encoding="utf-8")


def read_json(file: Path) -> Any:
    """The value in a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
