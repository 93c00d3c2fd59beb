"""Runs of `diet fit` in this process, each once; an interrupted sweep resumes with the missing runs."""

import os
from pathlib import Path

from record import SIZE

from diet_lightning.cli.lightning import run_lightning
from diet_lightning.runs.comparison import RunResults, read_run

# which data: a configuration of the package or a file; and over it a source, such as hf:parquet:cifar10, and N
DATA = {"config": os.environ.get("DIET_CONFIG", "cifar10" if SIZE == "full" else "digits")}
for option in ("source", "subset"):
    if value := os.environ.get(f"DIET_{option.upper()}"):
        DATA[f"data.{option}"] = value
MINUTES: list[float] = []  # of each run, also of those that an earlier process made
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


def run_once(folder: Path, options: dict[str, object]) -> RunResults:
    """Trains with these options of ``diet fit`` unless the folder has the finished run, and reads what it logged."""
    last = folder / "checkpoints" / "last.ckpt"
    given = {**DATA, **options}
    if not (folder / "config.yaml").is_file():
        run_lightning(["fit", *(f"--{name}={value}" for name, value in given.items()), f"--run_dir={folder}", *QUIET])
    elif not last.is_file() or read_run(str(folder)).epochs < int(str(options["trainer.max_epochs"])):
        run_lightning(["fit", f"--ckpt_path={last}", *QUIET])
    MINUTES.append((last.stat().st_mtime - (folder / "config.yaml").stat().st_mtime) / 60)
    return read_run(str(folder))
