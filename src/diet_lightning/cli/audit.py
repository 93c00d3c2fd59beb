"""`diet audit`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from rich.console import Console
from rich.table import Table

from diet_lightning.audit.audit import Findings, examine
from diet_lightning.audit.html_page import Card, Section, page
from diet_lightning.audit.near_duplicates import Duplicates
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.errors import ConfigurationError
from diet_lightning.training.module import DIETModule
from diet_lightning.training.trained_run import open_run
from diet_lightning.transforms.convert import to_pixels

SAMPLES, PAIRS, PAGE = "samples", "duplicates", "index.html"
EXTREMES = 60  # of the hardest, and of the easiest samples on the page


def audit(
    run: str,
    output: str | None = None,
    source: str | None = None,
    augmentations: int = 4,
    false_discoveries: float = 0.1,
    k: int = 20,
    pictures: int = 1000,
    format: Literal["csv", "parquet"] = "csv",
) -> None:
    """Writes what a run's classifier knows about its training data: hard samples, near-duplicates, likely label errors.

    Leaves two tables, of all samples and of the near-duplicate pairs, and index.html, a page of thumbnails to look through.

    Args:
        run: Folder of a finished run, or a checkpoint.
        output: Folder of the results; None for audit in the run's folder.
        source: The data, where they have moved; None for the run's own.
        augmentations: Augmented views of each sample that its loss is the mean of.
        false_discoveries: Expected share of false pairs among the near-duplicates.
        k: Neighbours that judge a label.
        pictures: Thumbnails on the page, at most.
        format: Of the tables: csv or parquet.
    """
    for name, value in {"augmentations": augmentations, "k": k, "pictures": pictures}.items():
        if value < 1:
            raise ConfigurationError(f"Expected argument `{name}` to be at least 1, but got {value}.")
    if not 0.0 < false_discoveries < 1.0:
        raise ConfigurationError(f"Expected argument `false_discoveries` to be in (0, 1), but got {false_discoveries}.")
    write = _table_writer(format)
    opened = open_run(run)
    folder = Path(output or opened.folder / "audit")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"Output folder '{folder}' exists and is not empty: move it, or choose another `output`."
        )
    if opened.module.is_supervised:
        raise ConfigurationError(
            f"Run '{run}' was trained with target='label', so its rows are classes and tell nothing of single samples: audit a "
            "run with target='index'."
        )
    data = opened.open_data(**({} if source is None else {"source": source}))
    data.require_same_data(opened.data_state)
    found = examine(opened.module, data, augmentations, false_discoveries, k)
    names = data.names("train")
    folder.mkdir(parents=True, exist_ok=True)
    samples, pairs = _sample_columns(found, data, names), _pair_columns(found, opened.module)
    write(folder / f"{SAMPLES}.{format}", samples)
    write(folder / f"{PAIRS}.{format}", pairs)
    summary = _summary(found)
    sections = _sections(found, data, names, pictures)
    words = [f"Source {data.source}, {data.num_samples:,} training samples. {summary['words']}"]
    (folder / PAGE).write_text(page(f"Audit of {opened.folder.name}", words, sections), encoding="utf-8")
    _print(found, folder, summary)


# -- tables ------------------------------------------------------------------------------------------------------------


def _sample_columns(found: Findings, data: DIETDataModule, names: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    count = len(found.loss)
    columns: dict[str, Sequence[Any]] = {"index": list(range(count))}
    if names is not None:
        columns["path"] = names
    order = np.argsort(np.argsort(found.loss, kind="stable"), kind="stable")
    columns |= {
        "loss": found.loss.tolist(),
        "loss_spread": found.spread.tolist(),
        "loss_percentile": (100.0 * order / max(1, count - 1)).tolist(),
        "confused_with": found.confused_with.tolist(),
        "confusion": found.confusion.tolist(),
        "duplicate_group": found.duplicates.group.tolist(),
    }
    if bool((found.labels >= 0).any()):
        word = _class_word(data)
        columns |= {
            "label": found.labels.tolist(),
            "label_name": [word(label) for label in found.labels.tolist()],
            "suggested_label": found.doubts.suggested.tolist(),
            "suggested_name": [word(label) for label in found.doubts.suggested.tolist()],
            "label_doubt": found.doubts.doubt.tolist(),
        }
    return columns


def _pair_columns(found: Findings, module: DIETModule) -> dict[str, Sequence[Any]]:
    pairs = torch.from_numpy(found.duplicates.pairs)
    rows = torch.nn.functional.normalize(module.head.weight.detach().float(), dim=1)
    return {
        "first": pairs[:, 0].tolist(),
        "second": pairs[:, 1].tolist(),
        "similarity": found.duplicates.similarity.tolist(),
        "chance": found.duplicates.chance.tolist(),
        "row_similarity": (rows[pairs[:, 0]] * rows[pairs[:, 1]]).sum(dim=1).tolist(),
        "confused": [bool(found.confused_with[a] == b or found.confused_with[b] == a) for a, b in pairs.tolist()],
        "same_label": (found.labels[pairs[:, 0]] == found.labels[pairs[:, 1]]).tolist(),
    }


def _table_writer(format: str) -> Any:
    if format == "csv":
        return _write_csv
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(
            "Parquet tables need the pyarrow package: pip install 'diet-lightning[parquet]'."
        ) from error
    return lambda path, columns: pq.write_table(pa.table(dict(columns)), path)


def _write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _class_word(data: DIETDataModule) -> Any:
    names = data.class_names

    def word(label: int) -> str:
        return "" if label < 0 else str(names[label]) if names is not None and label < len(names) else str(label)

    return word


# -- page --------------------------------------------------------------------------------------------------------------


def _sections(found: Findings, data: DIETDataModule, names: Sequence[str] | None, pictures: int) -> list[Section]:
    word = _class_word(data)
    images = len(data.input_shape) == 3

    def card(sample: int, *lines: str) -> Card:
        pixels = to_pixels(data.stored("train", [sample]).input[0]) if images else None
        own = [names[sample]] if names is not None else []
        label = word(int(found.labels[sample]))
        return Card(pixels, f"#{sample}", [*own, *([f"label {label}"] if label else []), *lines])

    order = np.argsort(found.loss, kind="stable")
    ends = min(EXTREMES, len(order) // 2, max(1, pictures // 6))
    sections = [
        Section(
            "Hardest samples",
            "The classifier tells these least from the rest: unusual, blurred, empty or damaged ones are among them. Loss is the "
            "mean over augmented views, in nats.",
            [[card(n, f"loss {found.loss[n]:.3f}") for n in order[::-1][:ends].tolist()]],
        ),
        Section(
            "Easiest samples",
            "Told from all others at a glance: often strange borders, marks or colours that no other sample has.",
            [[card(n, f"loss {found.loss[n]:.3f}") for n in order[:ends].tolist()]],
        ),
    ]
    left = pictures - 2 * ends
    groups: list[list[Card]] = []
    for number in _by_surety(found.duplicates):
        members = np.flatnonzero(found.duplicates.group == number).tolist()
        if len(members) > left * 0.6 or left < 2:
            break
        groups.append([card(n) for n in members])
        left -= len(members)
    sections.append(
        Section(
            "Near-duplicates",
            f"Each frame holds samples that lie closer than chance allows, the surest first ({len(groups)} of "
            f"{found.duplicates.group.max() + 1} groups shown); duplicates.csv has every pair.",
            groups,
        )
    )
    if bool((found.labels >= 0).any()):
        doubtful = np.argsort(-found.doubts.doubt, kind="stable")
        chosen = [n for n in doubtful[: max(0, left)].tolist() if found.doubts.doubt[n] > 0.0]
        sections.append(
            Section(
                "Doubtful labels",
                "Their neighbours have another label, the surest first. With embeddings that tell the classes apart poorly, many "
                "of these are right.",
                [
                    [
                        card(
                            n,
                            f"neighbours say {word(int(found.doubts.suggested[n]))}",
                            f"doubt {found.doubts.doubt[n]:.2f}",
                        )
                        for n in chosen
                    ]
                ],
            )
        )
    return sections


def _by_surety(duplicates: Duplicates) -> list[int]:
    seen = dict.fromkeys(int(duplicates.group[first]) for first, _ in duplicates.pairs)  # pairs come the surest first
    return list(seen)


def _summary(found: Findings) -> dict[str, Any]:
    groups, pairs = int(found.duplicates.group.max()) + 1, len(found.duplicates.pairs)
    numbers: dict[str, Any] = {"samples": len(found.loss), "duplicate_pairs": pairs, "duplicate_groups": groups}
    words = f"{pairs} near-duplicate pairs in {groups} groups."
    if bool((found.labels >= 0).any()):
        numbers["doubtful_labels"] = int((found.doubts.doubt > 0.0).sum())
        words += f" Neighbours disagree with {numbers['doubtful_labels']} labels."
    else:
        words += " There are no labels, so none can be doubted; nothing else here needs them."
    return {**numbers, "words": words}


def _print(found: Findings, folder: Path, summary: dict[str, Any]) -> None:
    table = Table(title="Audit")
    for column in ("", "samples"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in summary.items():
        if name != "words":
            table.add_row(name.replace("_", " "), f"{value:,}")
    Console().print(table)
    rank_zero_info(str(summary["words"]))
    print(f"Look through {folder / PAGE}")
    print(json.dumps({**{key: value for key, value in summary.items() if key != "words"}, "output": str(folder)}))
