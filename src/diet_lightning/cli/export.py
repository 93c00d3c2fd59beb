"""`diet export`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from diet_lightning.export.folder import export_backbone
from diet_lightning.export.model_card import RunFacts
from diet_lightning.runs.checkpoint import read_checkpoint
from diet_lightning.runs.folder import METRICS
from diet_lightning.runs.metrics import LOSS_GAP, PROBE
from diet_lightning.runs.scores import Score, read_scores
from diet_lightning.training.trained_run import TrainedRun, open_run
from diet_lightning.transforms.preprocessing import Preprocessing

TRAINING = {
    LOSS_GAP: "nats, mean over the last whole epoch",
    PROBE: "online linear probe, last validation",
}
RECIPE = (
    "label_smoothing",
    "lr",
    "weight_decay",
    "warmup_epochs",
    "min_lr",
)


def export(run: str, format: str = "safetensors", output: str | None = None) -> None:
    """Writes the backbone of a finished run, with its config and a model card, into a folder for other programs.

    Args:
        run: Folder of the run, or a checkpoint.
        format: safetensors (for load_backbone, and --model.backbone of a new run), onnx, or timm.
        output: Folder to write, which must not exist or be empty; None for RUN/export/FORMAT.
    """
    opened = open_run(run)
    target = opened.folder / "export" / format if output is None else Path(output)
    preprocessing = None
    if "mean" in opened.data_state:
        mean, std = (tuple(opened.data_state[name]) for name in ("mean", "std"))
        preprocessing = Preprocessing(tuple(opened.record.input_shape), mean, std)
    backbone = opened.module.backbone
    print(
        f"Exported: {export_backbone(backbone, target, format, preprocessing=preprocessing, facts=run_facts(opened))}"
    )


def run_facts(run: TrainedRun) -> RunFacts:
    """What the files of a run tell a model card.

    Args:
        run: The run.

    Returns:
        Its data, recipe and measured values, up to its checkpoint.

    Raises:
        ConfigurationError: If ``evaluation.json`` is damaged.
    """
    steps = int(read_checkpoint(run.checkpoint)["global_step"])
    data, trainer = run.config.get("data", {}), run.config.get("trainer", {})
    about = {
        "source": run.record.source or "data sets passed in Python",
        "training samples (N)": run.record.num_samples,
        "classes": run.record.num_classes,
        "fingerprint": run.record.fingerprint,
        "subset": data.get("subset"),
        "image_size": data.get("image_size"),
    }
    recipe = {name: run.module.hparams.get(name) for name in RECIPE}
    head = dict(run.module.hparams["head"])
    if head["kind"] != "sampled":
        head.pop("num_sampled")
    recipe |= {f"head.{name}": value for name, value in head.items()}
    recipe |= {"total_batch_size": run.record.batch_size}
    recipe |= {name: data.get(name) for name in ("strength", "augmentation")}
    recipe |= {name: trainer.get(name) for name in ("max_epochs", "accumulate_grad_batches", "devices", "precision")}
    recipe |= {"seed": run.config.get("seed_everything"), "optimiser steps taken": steps}
    recipe |= {"versions": ", ".join(f"{name} {version}" for name, version in run.record.versions.items())}
    training = _training(run.folder / METRICS, steps)
    return RunFacts(_known(about), _known(recipe), training, read_scores(run.folder))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _training(file: Path, steps: int) -> dict[str, Score]:
    """The last values before the checkpoint was written."""
    if not file.is_file():
        return {}
    with file.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["step"]) < steps]
    last = {name: [float(row[name]) for row in rows if row.get(name)][-1:] for name in TRAINING}
    return {f"{name} ({TRAINING[name]})": Score(*values) for name, values in last.items() if values}
