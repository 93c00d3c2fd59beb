"""`diet audit`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from rich.console import Console
from rich.table import Column, Table

from diet_lightning.audit import report
from diet_lightning.audit.audit import audit_data
from diet_lightning.errors import ConfigurationError, require, require_positive
from diet_lightning.training.trained_run import open_run
from diet_lightning.utilities.csv_cells import write_csv
from diet_lightning.utilities.files import require_empty_dir

PAGE = "index.html"


def audit(
    run: str,
    output: str | None = None,
    source: str | None = None,
    augmentations: int = 4,
    fdr: float = 0.1,
    k: int = 20,
    pictures: int = 1000,
    format: Literal["csv", "parquet"] = "csv",
) -> None:
    """Audits the training data of a run: hard samples, near-duplicates and label issues.

    Writes two tables, of all samples and of the near-duplicate pairs, and index.html, a page of thumbnails.

    Args:
        run: Folder of a finished run, or a checkpoint.
        output: Folder of the results; None for audit in the run's folder.
        source: Source of the data if they were moved; None for that of the run.
        augmentations: Number of augmented views of each sample; its loss is the mean over them.
        fdr: False discovery rate: expected share of false pairs among the near-duplicates.
        k: Number of nearest neighbours that a label is compared with.
        pictures: Largest number of thumbnails on the page.
        format: Format of the tables.
    """
    require_positive(augmentations=augmentations, k=k, pictures=pictures)
    require(0.0 < fdr < 1.0, "fdr", "in (0, 1)", fdr)
    if format == "parquet" and find_spec("pyarrow") is None:
        raise ConfigurationError("Parquet tables need the pyarrow package: pip install 'diet-lightning[parquet]'.")
    opened = open_run(run)
    folder = Path(output or opened.folder / "audit")
    require_empty_dir(folder)
    if opened.record.target == "label":
        raise ConfigurationError(
            f"Run '{run}' was trained with SupervisedModule, so the rows of its head are classes and not samples: audit a run of "
            "DIETModule."
        )
    data = opened.open_data(**({} if source is None else {"source": source}))
    data.require_same_data(opened.data_state)
    found = audit_data(opened.module, data, augmentations, fdr, k)
    names = data.names("train")
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(folder / f"samples.{format}", report.sample_columns(found, opened.record.class_names, names))
    _write_table(folder / f"duplicates.{format}", report.pair_columns(found, opened.module))
    summary = report.summary(found)
    words = summary.pop("words")
    sections = report.sections(found, data, opened.record.class_names, names, pictures)
    lines = [f"Source {data.source}, {data.num_samples:,} training samples. {words}"]
    (folder / PAGE).write_text(report.page(f"Audit of {opened.folder.name}", lines, sections), encoding="utf-8")
    table = Table("", Column("samples", justify="right"), title="Audit")
    for name, count in summary.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    Console().print(table)
    rank_zero_info(words)
    print(f"Open {folder / PAGE}")
    print(json.dumps({**summary, "output": str(folder)}))


def _write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    if path.suffix == ".csv":
        write_csv(path, columns)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(dict(columns)), path)
