"""`diet compare`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from diet_lightning.errors import ConfigurationError
from diet_lightning.figures.curves import loss_against_probe
from diet_lightning.figures.style import save_figure
from diet_lightning.runs.comparison import (
    FinishedRun,
    Group,
    RankAgreement,
    agreement_of,
    choose_metric,
    differing_settings,
    ranked,
    read_runs,
)
from diet_lightning.runs.metrics import LINEAR, LOSS_GAP, PROBE, RANKME, TRAIN_RANKME
from diet_lightning.utilities.csv_cells import csv_cell

RANKS = {RANKME: "RankMe", TRAIN_RANKME: "RankMe (train)"}  # metric → heading
TABLE, FIGURE = "compare.csv", "figure1.png"
WIDTH = 120  # of what is written to a file, in characters


def compare(runs: list[str], metric: str | None = None, output: str = "compare") -> None:
    """Ranks finished runs by their training loss, without labels: `diet compare RUN RUN`.

    At one label smoothing the features are the better the closer the loss came to its floor. Prints the runs, best first,
    and where they were probed with labels, how far the ranking agrees with accuracy: Spearman's rank correlation of a smaller
    loss gap with a higher accuracy. The last line is one JSON object.

    Args:
        runs: Folders of runs made by `diet fit`.
        metric: Accuracy that the ranking is compared with; None for val/probe_top1, or else what the runs have.
        output: Folder for compare.csv and, where there are accuracies, figure1.png.
    """
    folder = Path(output)
    for name in (TABLE, FIGURE):
        if (folder / name).exists():
            raise ConfigurationError(f"Output file '{folder / name}' exists: move it, or choose another `output`.")
    found = read_runs(runs)
    chosen = choose_metric(found, metric)
    groups = ranked(found)
    agreements = {group: agreement_of(members, chosen) for group, members in groups.items()} if chosen else {}
    # loss gaps of different smoothings do not compare, but one number over all runs is what there is to hold that against
    kinds = {(group.data, group.target) for group in groups}
    overall = agreement_of(found, chosen) if chosen and len(kinds) == 1 and len(groups) > 1 else None
    rows = [_row(run, place, chosen) for members in groups.values() for place, run in enumerate(members, 1)]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(_table(rows))
    for sentence in [*_agreements(agreements, overall, chosen), *_remarks(groups, chosen)]:
        console.print(sentence, highlight=False)
    _write_table(rows, folder / TABLE)
    drawn = _draw(groups, agreements, chosen, folder / FIGURE)
    console.print(f"Written: {folder / TABLE}{f' and {folder / FIGURE}' if drawn else ''}", highlight=False)
    correlations = [{**group._asdict(), **agreement._asdict()} for group, agreement in agreements.items()]
    print(
        json.dumps(
            {
                "ranking": rows,
                "metric": chosen,
                "correlations": _rounded(correlations),
                "over_all": None if overall is None else _rounded([overall._asdict()])[0],
                "output": str(folder),
            }
        )
    )


def _row(run: FinishedRun, place: int, metric: str | None) -> dict[str, Any]:
    values = {name: run.end(name) for name in dict.fromkeys([LOSS_GAP, *RANKS, PROBE, LINEAR, metric]) if name}
    row = {
        "place": place,
        "run": run.name,
        **run.group._asdict(),
        "backbone": _backbone(run),
        "num_samples": run.record.num_samples,
        "epochs": run.epochs,
        "planned_epochs": run.planned_epochs,
        **values,
    }
    return _rounded([row])[0]


def _backbone(run: FinishedRun) -> str:
    return run.record.backbone or "custom module"


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


# -- shown -------------------------------------------------------------------------------------------------------------


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Runs by loss gap, the smallest first: the better features at the same label smoothing")
    short = {row["run"]: Path(row["run"]).name or row["run"] for row in rows}
    if len(set(short.values())) < len(rows):
        short = {name: name for name in short}
    measured = [name for name in (*RANKS, *_accuracies(rows)) if any(row.get(name) is not None for row in rows)]
    heads = ["", "run", "backbone", "N", "epochs", "smoothing", "loss gap", *(_heading(name) for name in measured)]
    if len({row["target"] for row in rows}) > 1:
        heads.insert(5, "target")
    if len({row["data"] for row in rows}) > 1:
        heads.insert(3, "data")
    for head in heads:
        table.add_column(
            head, justify="left" if head in ("run", "backbone", "data", "target") else "right", overflow="fold"
        )
    before = None
    for row in rows:
        group = Group(row["data"], row["target"], row["label_smoothing"])
        if before not in (None, group):
            table.add_section()
        before = group
        planned = row["planned_epochs"]
        cells = {
            "": str(row["place"]),
            "run": short[row["run"]],
            "backbone": row["backbone"],
            "data": row["data"],
            "N": "–" if row["num_samples"] is None else f"{row['num_samples']:,}",
            "epochs": str(row["epochs"]) + (f" of {planned}" if planned and planned > row["epochs"] else ""),
            "target": row["target"],
            "smoothing": f"{row['label_smoothing']:g}",
            "loss gap": f"{row[LOSS_GAP]:.4f}",
        }
        cells |= {_heading(name): _shown(row.get(name), "{:.1f}" if name in RANKS else "{:.1%}") for name in measured}
        table.add_row(*(cells[head] for head in heads))
    return table


def _accuracies(rows: list[dict[str, Any]]) -> list[str]:
    return [name for name in rows[0] if "/" in name and name not in (LOSS_GAP, *RANKS)]


def _heading(metric: str) -> str:
    return RANKS.get(metric, metric)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _agreements(agreements: dict[Group, RankAgreement], overall: RankAgreement | None, metric: str | None) -> list[str]:
    if metric is None:
        return []
    several = len({group[:2] for group in agreements}) > 1
    lines = [
        f"Spearman's rank correlation of a smaller loss gap with a higher {metric} at the runs' ends (1: one order):"
    ]
    for group, agreement in agreements.items():
        where = f"{group.data}, target {group.target}, " if several else ""
        lines.append(f"  {where}label smoothing {group.label_smoothing:g}: {_told(agreement)}")
    if overall is not None:
        lines.append(f"  over all runs, whatever their label smoothing: {_told(overall)}")
    return lines


def _told(agreement: RankAgreement) -> str:
    if agreement.spearman is not None:
        return str(agreement)
    return f"none, n = {agreement.runs} (it takes three runs that differ in both)"


def _remarks(groups: dict[Group, list[FinishedRun]], metric: str | None) -> list[str]:
    runs = [run for members in groups.values() for run in members]
    data, targets = {group.data for group in groups}, {group.target for group in groups}
    said = []
    if metric is None:
        rank = (
            " RankMe, where it was logged, can be read beside it."
            if any(run.end(name) for run in runs for name in RANKS)
            else ""
        )
        said.append(
            f"No run has an accuracy, so loss gap alone ranks them.{rank} How far that ranking agrees with accuracy cannot be "
            "told without labels, and Figure 1 cannot be drawn: label some samples and probe the runs."
        )
    elif missing := [run.name for run in runs if run.end(metric) is None]:
        said.append(f"Without {metric}, so ranked only: {', '.join(missing)}.")
    if len({group.label_smoothing for group in groups}) > 1:
        said.append("Loss gaps compare at one label smoothing only: each is ranked by itself.")
    if len(data) > 1:
        said.append(f"Runs of different data do not compare, so each is ranked by itself: {'; '.join(sorted(data))}.")
    if len(targets) > 1:
        said.append("Loss gaps over indices and over labels do not compare; accuracies do.")
    for members in groups.values():
        counts = [count for run in members if (count := run.record.num_samples) is not None]
        if counts and max(counts) > 1.01 * min(counts):
            said.append(
                f"The number of samples differs within {members[0].group.data} ({min(counts):,} to {max(counts):,}): the data "
                "have changed between runs, and their loss gaps do not compare."
            )
    differing = dict.fromkeys(name for members in groups.values() for name in differing_settings(members))
    if differing:
        said.append(f"Runs that are ranked together differ in {', '.join(differing)}, which moves the loss by itself.")
    return said


# -- written -----------------------------------------------------------------------------------------------------------


def _write_table(rows: list[dict[str, Any]], file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    except OSError as error:
        raise ConfigurationError(
            f"Output file '{file}' cannot be written ({error.strerror}): choose another `output`."
        ) from error


def _draw(
    groups: dict[Group, list[FinishedRun]], agreements: dict[Group, RankAgreement], metric: str | None, file: Path
) -> bool:
    """Draws Figure 1 of runs that have one axis in common."""
    runs = [run for members in groups.values() for run in members]
    if metric is None or len({run.group[:2] for run in runs}) > 1:
        return False
    points = [(run, np.array(pairs)) for run in runs if (pairs := run.paired(LOSS_GAP, metric))]
    if not points:
        return False
    notes = {group.label_smoothing: f"Spearman {agreement}" for group, agreement in agreements.items()}
    figure = loss_against_probe(
        [pairs[:, 0] for _, pairs in points],
        [pairs[:, 1] for _, pairs in points],
        [run.group.label_smoothing for run, _ in points],
        [_backbone(run) for run, _ in points],
        notes,
        metric,
    )
    save_figure(figure, file)
    return True
