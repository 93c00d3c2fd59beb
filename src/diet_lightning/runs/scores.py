"""The ``evaluation.json`` of a run: its scores with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from diet_lightning.errors import ConfigurationError, first_line
from diet_lightning.utilities.files import read_json, write_json

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Score:
    """A measured value with its interval.

    Attributes:
        value: The value; accuracies are in [0, 1].
        low: Lower end of the interval; None if unknown.
        high: Upper end of the interval; None if unknown.
        std: Standard deviation over trials with other training labels; None for a single trial.
    """

    value: float
    low: float | None = None
    high: float | None = None
    std: float | None = None


def read_scores(folder: Path) -> dict[str, Score]:
    """Reads the scores in a run's folder.

    Returns:
        Scores by name, such as ``test/linear_top1``; empty if nothing was measured.

    Raises:
        ConfigurationError: If their file is damaged.
    """
    file = folder / EVALUATION
    if not file.is_file():
        return {}
    try:
        return {name: _score(**entry) for name, entry in read_json(file).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"'{file}' cannot be read ({first_line(error)}): move it away, and run `diet test` again."
        ) from error


def _score(value: float, low: float, high: float, std: float | None = None) -> Score:
    return Score(float(value), float(low), float(high), None if std is None else float(std))


def write_scores(folder: Path, scores: Mapping[str, Score]) -> None:
    """Adds scores, by name, to those in a run's folder, in place of earlier ones of the same names.

    Raises:
        ConfigurationError: If the file of earlier scores is damaged.
    """
    every = {**read_scores(folder), **scores}
    write_json(folder / EVALUATION, {name: asdict(score) for name, score in every.items()})
