"""`diet compare`."""

from __future__ import annotations

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
    Group,
    RankAgreement,
    RunResults,
    agreement_of,
    choose_metric,
    differing_settings,
    ranked,
    read_runs,
)
from diet_lightning.runs.metrics import LINEAR, LOSS_GAP, PROBE, RANKME, TRAIN_RANKME
from diet_lightning.utilities.csv_cells import write_csv
from diet_lightning.utilities.files import require_writable

RANKS = {RANKME: "RankMe", TRAIN_RANKME: "RankMe (train)"}  # metric → heading
TABLE, FIGURE = "compare.csv", "figure1.png"
WIDTH = 120  # of what is written to a file, in characters

Row = dict[str, Any]  # of the table: name of a column → value


def compare(runs: list[str], metric: str | None = None, output: str = "compare") -> None:
    """Ranks finished runs by their training loss, without labels.

    Among runs of one label smoothing, a loss closer to its floor indicates better features. Prints the runs sorted by this loss
    gap and, if their accuracies were measured, Spearman's rank correlation of a smaller loss gap with a higher accuracy. The
    last line is one JSON object.

    Args:
        runs: Folders of runs made by `diet fit`.
        metric: Accuracy that the ranking is compared with; None for val/probe_top1, or another that most of the runs have.
        output: Folder for compare.csv and, if there are accuracies, figure1.png.
    """
    folder = Path(output)
    for name in (TABLE, FIGURE):
        if (folder / name).exists():
            raise ConfigurationError(f"Output file '{folder / name}' exists: move it, or choose another `output`.")
    found = read_runs(runs)
    chosen = choose_metric(found, metric)
    groups = ranked(found)
    agreements = {group: agreement_of(members, chosen) for group, members in groups.items()} if chosen else {}
    # loss gaps of different smoothings are not comparable: this number shows to what extent
    kinds = {(group.data, group.target) for group in groups}
    overall = agreement_of(found, chosen) if chosen and len(kinds) == 1 and len(groups) > 1 else None
    tables = [[_row(run, place, chosen) for place, run in enumerate(members, 1)] for members in groups.values()]
    rows = [row for table in tables for row in table]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(_table(tables, rows))
    for sentence in [*_agreements(agreements, overall, chosen), *_remarks(groups, chosen)]:
        console.print(sentence, highlight=False)
    with require_writable(f"Output file '{folder / TABLE}'"):
        write_csv(folder / TABLE, {name: [row[name] for row in rows] for name in rows[0]})
    drawn = _draw(groups, agreements, chosen, folder / FIGURE)
    console.print(f"Written: {folder / TABLE}{f' and {folder / FIGURE}' if drawn else ''}", highlight=False)
    summary = {
        "ranking": rows,
        "metric": chosen,
        "correlations": [_rounded({**group._asdict(), **each._asdict()}) for group, each in agreements.items()],
        "over_all": None if overall is None else _rounded(overall._asdict()),
        "output": str(folder),
    }
    print(json.dumps(summary))


def _row(run: RunResults, place: int, metric: str | None) -> Row:
    row = {
        "place": place,
        "run": run.name,
        **run.group._asdict(),
        "backbone": run.backbone,
        "num_samples": run.record.num_samples,
        "epochs": run.epochs,
        "planned_epochs": run.planned_epochs,
    }
    return _rounded(row | {name: run.end(name) for name in (LOSS_GAP, *RANKS, PROBE, LINEAR, metric) if name})


def _rounded(row: Row) -> Row:
    return {name: round(value, 6) if type(value) is float else value for name, value in row.items()}


def _table(tables: list[list[Row]], rows: list[Row]) -> Table:
    short = {row["run"]: Path(row["run"]).name or row["run"] for row in rows}
    if len(set(short.values())) < len(rows):
        short = {name: name for name in short}
    varied = [name for name in ("data", "target") if len({row[name] for row in rows}) > 1]
    measured = [
        name for name in rows[0] if "/" in name and name != LOSS_GAP and any(row[name] is not None for row in rows)
    ]

    def cells(row: Row) -> dict[str, str]:
        planned = row["planned_epochs"]
        return {
            "": str(row["place"]),
            "run": short[row["run"]],
            "backbone": row["backbone"],
            **{name: row[name] for name in varied if name == "data"},
            "N": _shown(row["num_samples"], "{:,}"),
            "epochs": str(row["epochs"]) + (f" of {planned}" if planned and planned > row["epochs"] else ""),
            **{name: row[name] for name in varied if name == "target"},
            "smoothing": f"{row['label_smoothing']:g}",
            "loss gap": f"{row[LOSS_GAP]:.4f}",
            **{RANKS.get(name, name): _shown(row[name], "{:.1f}" if name in RANKS else "{:.1%}") for name in measured},
        }

    table = Table(
        title="Runs by loss gap, ascending: at the same label smoothing a smaller one indicates better features"
    )
    for head in cells(rows[0]):
        is_text = head in ("run", "backbone", "data", "target")
        table.add_column(head, justify="left" if is_text else "right", overflow="fold")
    for members in tables:
        for row in members:
            table.add_row(*cells(row).values())
        table.add_section()
    return table


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _agreements(agreements: dict[Group, RankAgreement], overall: RankAgreement | None, metric: str | None) -> list[str]:
    if metric is None:
        return []
    several = len({group[:2] for group in agreements}) > 1
    named = {
        f"{f'{group.data}, target {group.target}, ' if several else ''}label smoothing {group.label_smoothing:g}": each
        for group, each in agreements.items()
    }
    if overall is not None:
        named["over all runs of any label smoothing"] = overall
    lines = [
        f"Spearman's rank correlation of a smaller loss gap with a higher {metric} at the end of the runs (1: the same order):"
    ]
    for name, each in named.items():
        why = " (needs three runs that differ in both)" if each.spearman is None else ""
        lines.append(f"  {name}: {each}{why}")
    return lines


def _remarks(groups: dict[Group, list[RunResults]], metric: str | None) -> list[str]:
    runs = [run for members in groups.values() for run in members]
    data, targets, smoothings = (sorted(set(values)) for values in zip(*groups, strict=True))
    said = []
    if metric is None:
        has_rank = any(run.end(name) for run in runs for name in RANKS)
        rank = " RankMe, where it was logged, is shown beside it." if has_rank else ""
        said.append(
            f"No run has an accuracy, so loss gap alone ranks them.{rank} Without labels the agreement of that ranking with "
            "accuracy is unknown, and Figure 1 cannot be drawn: label some samples and probe the runs."
        )
    elif missing := [run.name for run in runs if run.end(metric) is None]:
        said.append(f"Without {metric}, so ranked only: {', '.join(missing)}.")
    if len(smoothings) > 1:
        said.append("Loss gaps are comparable at one label smoothing only: each smoothing is ranked separately.")
    if len(data) > 1:
        said.append(f"Runs of different data are not comparable, so each is ranked separately: {'; '.join(data)}.")
    if len(targets) > 1:
        said.append("Loss gaps over indices and over labels are not comparable; accuracies are.")
    for group, members in groups.items():
        counts = [count for run in members if (count := run.record.num_samples) is not None]
        if counts and max(counts) > 1.01 * min(counts):
            said.append(
                f"The number of samples differs within {group.data} ({min(counts):,} to {max(counts):,}): the data "
                "have changed between runs, and their loss gaps are not comparable."
            )
    differing = dict.fromkeys(name for members in groups.values() for name in differing_settings(members))
    if differing:
        said.append(
            f"Runs that are ranked together differ in {', '.join(differing)}, which changes the loss by itself."
        )
    return said


def _draw(
    groups: dict[Group, list[RunResults]], agreements: dict[Group, RankAgreement], metric: str | None, file: Path
) -> bool:
    """Draws Figure 1 of runs that have one axis in common."""
    if metric is None or len({group[:2] for group in groups}) > 1:
        return False
    points = [(run, np.array(pairs)) for members in groups.values() for run in members if (pairs := run.paired(metric))]
    if not points:
        return False
    figure = loss_against_probe(
        [pairs[:, 0] for _, pairs in points],
        [pairs[:, 1] for _, pairs in points],
        [run.group.label_smoothing for run, _ in points],
        [run.backbone for run, _ in points],
        {group.label_smoothing: f"Spearman {agreement}" for group, agreement in agreements.items()},
        metric,
    )
    save_figure(figure, file)
    return True
