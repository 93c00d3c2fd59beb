"""Exceptions of the package: each message is one sentence that names the argument, its value and the cure."""

from __future__ import annotations

from typing import Any


class DIETError(Exception):
    """Base of every error that this package raises for a user's input."""

    def __init__(self, message: str) -> None:
        # a DataLoader's worker raises it again with the whole traceback as its message: the sentence alone is kept
        if message.startswith("Caught ") and "Original Traceback" in message:
            message = message.rsplit(f"\n{type(self).__module__}.{type(self).__qualname__}: ", 1)[-1].strip()
        super().__init__(message)


class ConfigurationError(DIETError, ValueError):
    """An argument, or a combination of arguments, that cannot be served."""


class DataError(DIETError):
    """A data set, a sample or an index that would give DIET a wrong label."""


class CheckpointError(DIETError):
    """A checkpoint that cannot be read, or that belongs to other data."""


class NonFiniteError(DIETError):
    """A loss that is not a finite number."""


def require(is_valid: bool, argument: str, expected: str, value: Any) -> None:
    """Raises a `ConfigurationError` that says what was expected of an argument, if its value is not valid."""
    if not is_valid:
        raise ConfigurationError(f"Expected argument `{argument}` to be {expected}, but got {value!r}.")


def require_positive(**arguments: int) -> None:
    """Raises a `ConfigurationError` for the first argument below 1."""
    for name, value in arguments.items():
        require(value >= 1, name, "at least 1", value)


def first_line(error: Exception) -> str:
    """First line of an error's message; the name of its class if it has no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
