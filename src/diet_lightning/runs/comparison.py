"""Compares finished runs: ranks them by loss gap, without labels, and correlates the ranking with accuracy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from diet_lightning.errors import ConfigurationError, first_line
from diet_lightning.runs.folder import CONFIG, METRICS, read_config
from diet_lightning.runs.metrics import LOSS_GAP, PROBE, is_accuracy, read_curves
from diet_lightning.runs.record import RunRecord
from diet_lightning.runs.scores import read_scores

FEWEST = 3  # smallest number of runs for a rank correlation; of two runs it is always 1 or -1
# settings that change the loss by themselves; runs that differ in them are still compared
LOSS_SETTINGS = (
    "data.strength",
    "data.augmentation",
    "model.head.temperature",
    "model.head.normalize_features",
    "model.head.normalize_rows",
)


class Group(NamedTuple):
    """Properties that runs must share for their loss gaps to be comparable.

    Attributes:
        data: The training data: source, and subset and image size where they were set.
        target: ``"index"`` for DIET, ``"label"`` for a supervised run.
        label_smoothing: In ``[0, 1)``.
    """

    data: str
    target: str
    label_smoothing: float


@dataclass(frozen=True)
class RunResults:
    """What a finished run recorded. Its network is a `TrainedRun`, which needs the checkpoint and takes seconds to load.

    Attributes:
        name: The folder, as it was given.
        group: The group of runs with comparable loss gaps.
        record: Its ``run.json``.
        settings: `LOSS_SETTINGS` → value; None where the configuration lacks it.
        planned_epochs: ``max_epochs``; None if the run ends by another setting.
        curves: Name of a metric → epochs completed → value; ``train/loss_gap`` is among them.
        offline: Name of a metric measured afterwards → value.
    """

    name: str
    group: Group
    record: RunRecord
    settings: Mapping[str, Any]
    planned_epochs: int | None
    curves: Mapping[str, Mapping[int, float]]
    offline: Mapping[str, float]

    @property
    def backbone(self) -> str:
        """Name of the network."""
        return self.record.backbone or "custom module"

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return max(self.curves[LOSS_GAP])

    @property
    def loss_gap(self) -> float:
        """Training loss minus its floor in the last epoch, in nats."""
        return self.curves[LOSS_GAP][self.epochs]

    def end(self, metric: str) -> float | None:
        """The last value of a metric; None if the run lacks it."""
        if metric in self.offline:
            return self.offline[metric]
        curve = self.curves.get(metric, {})
        return curve[max(curve)] if curve else None

    def paired(self, metric: str) -> list[tuple[float, float]]:
        """Loss gap and a metric in the epochs that have both; in the last one only if it was measured afterwards."""
        if metric in self.offline:
            return [(self.loss_gap, self.offline[metric])]
        gaps, values = self.curves[LOSS_GAP], self.curves.get(metric, {})
        return [(gaps[epoch], values[epoch]) for epoch in sorted(gaps.keys() & values.keys())]


class RankAgreement(NamedTuple):
    """Spearman's rank correlation of a smaller loss gap with a higher accuracy: 1 if both give the same order.

    Attributes:
        runs: Number of runs.
        spearman: In [-1, 1]; None for fewer than three runs, or if one of the two does not vary.
        low: Lower end of its 95 % interval (Bonett and Wright, 2000); None for fewer than four runs or a perfect order.
        high: Upper end of the interval.
    """

    runs: int
    spearman: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Such as ``0.94 [0.53, 0.99], n = 6``."""
        value = "none" if self.spearman is None else f"{self.spearman:.2f}"
        interval = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{value}{interval}, n = {self.runs}"


def read_runs(folders: Sequence[str]) -> list[RunResults]:
    """Reads runs from their folders, in this order.

    Raises:
        ConfigurationError: If `folders` is empty, one is given twice, or one is not a run or has no completed epoch.
    """
    if not folders:
        raise ConfigurationError("Expected argument `runs` to name run folders, but got none: diet compare RUN RUN ….")
    known: dict[Path, str] = {}
    for name in folders:
        other = known.setdefault(Path(name).resolve(), name)
        if other is not name:
            raise ConfigurationError(f"Run '{name}' is given twice ('{other}'): name each run once.")
    return [read_run(name) for name in folders]


def read_run(folder: str) -> RunResults:
    """Reads one run, and raises an error as `read_runs`."""
    path = Path(folder)
    record = RunRecord.read(path)
    try:
        config = read_config(path)
        settings = {name: _lookup(config, name) for name in LOSS_SETTINGS}
        group = Group(_data_name(record, config), record.target, record.label_smoothing)
        by_steps = (_lookup(config, "trainer.max_steps") or -1) > 0 or _lookup(config, "trainer.max_time") is not None
        planned = int(_lookup(config, "trainer.max_epochs") or 0)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"The {CONFIG} of run '{folder}' cannot be read ({type(error).__name__}: {first_line(error)}): give folders "
            "made by `diet fit`."
        ) from error
    curves = read_curves(path)
    if LOSS_GAP not in curves:
        raise ConfigurationError(
            f"Run '{folder}' has no {LOSS_GAP} in {METRICS}: it has completed no epoch; train it on, or leave it out."
        )
    return RunResults(
        str(path),
        group,
        record,
        settings,
        None if by_steps or planned < 1 else planned,
        curves,
        {name: score.value for name, score in read_scores(path).items()},
    )


def _lookup(config: Any, name: str) -> Any:
    """The value of a dotted name; None if the configuration lacks it."""
    for key in name.split("."):
        config = (config or {}).get(key)
    return config


def _data_name(record: RunRecord, config: Mapping[str, Any]) -> str:
    if record.source is None:
        return f"data set {(record.fingerprint or 'passed in Python')[:16]}"
    subset, size = _lookup(config, "data.subset"), _lookup(config, "data.image_size")
    parts = [record.source, f"subset {subset}" if subset else "", f"{size} pixels" if size else ""]
    return ", ".join(filter(None, parts))


def choose_metric(runs: Sequence[RunResults], metric: str | None = None) -> str | None:
    """Name of the accuracy with which the ranking of runs is compared; None if no run has one.

    It is `metric`, or ``val/probe_top1``, or else the accuracy that most of the runs have.

    Raises:
        ConfigurationError: If no run has `metric`.
    """
    counts = Counter(name for run in runs for name in (*filter(is_accuracy, run.curves), *run.offline))
    if metric is not None and metric not in counts:
        raise ConfigurationError(
            f"Expected argument `metric` to be an accuracy of the runs, one of {sorted(counts)}, but got {metric!r}."
        )
    if metric is None and counts:
        metric = PROBE if PROBE in counts else counts.most_common(1)[0][0]
    return metric


def ranked(runs: Iterable[RunResults]) -> dict[Group, list[RunResults]]:
    """Group of comparable runs → its runs sorted by loss gap, ascending; the groups are sorted too."""
    ordered = sorted(runs, key=lambda run: (run.group, run.loss_gap))
    return {group: list(members) for group, members in groupby(ordered, key=lambda run: run.group)}


def rank_agreement(loss_gaps: Sequence[float], accuracies: Sequence[float]) -> RankAgreement:
    """Agreement of the order of runs by loss gap, ascending, with their order by accuracy, descending."""
    from scipy.stats import norm, spearmanr  # here, as the import takes half a second

    count = len(loss_gaps)
    if count < FEWEST or len(set(loss_gaps)) == 1 or len(set(accuracies)) == 1:
        return RankAgreement(count)
    value = float(spearmanr([-gap for gap in loss_gaps], accuracies).statistic)
    if count == FEWEST or abs(value) > 1.0 - 1e-9:
        return RankAgreement(count, value)
    half = norm.ppf(0.975) * math.sqrt((1.0 + value**2 / 2.0) / (count - 3))
    return RankAgreement(count, value, *(math.tanh(math.atanh(value) + side) for side in (-half, half)))


def agreement_of(runs: Iterable[RunResults], metric: str) -> RankAgreement:
    """`rank_agreement` of the last values of the runs that have a metric."""
    ends = [(run.loss_gap, value) for run in runs if (value := run.end(metric)) is not None]
    return rank_agreement([gap for gap, _ in ends], [value for _, value in ends])


def differing_settings(runs: Iterable[RunResults]) -> list[str]:
    """Those of `LOSS_SETTINGS` that differ among some runs."""
    first, *others = (run.settings for run in runs)
    return [name for name in LOSS_SETTINGS if any(each[name] != first[name] for each in others)]
