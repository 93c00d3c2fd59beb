"""`diet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diet_lightning.export.folder import export_backbone
from diet_lightning.export.model_card import RunFacts
from diet_lightning.runs.checkpoint import read_checkpoint
from diet_lightning.runs.metrics import LOSS_GAP, PROBE, read_curves
from diet_lightning.runs.scores import Score, read_scores
from diet_lightning.training.trained_run import TrainedRun, open_run
from diet_lightning.transforms.preprocessing import Preprocessing

# metric → how it was measured
TRAINING = {LOSS_GAP: "nats, mean over the last whole epoch", PROBE: "online linear probe, last validation"}
RECIPE = ("label_smoothing", "lr", "weight_decay", "warmup_epochs", "min_lr")


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
        state, scaled = opened.data_state, opened.data_state["value_range"]
        value_range = None if scaled is None else (scaled[0], scaled[1])
        shape = tuple(opened.record.input_shape)
        preprocessing = Preprocessing(shape, mean, std, state["background"], value_range, state["fit"])
    facts = _facts(opened)
    written = export_backbone(opened.module.backbone, target, format, preprocessing=preprocessing, facts=facts)
    print(f"Exported: {written}")


def _facts(run: TrainedRun) -> RunFacts:
    """Data, recipe and measured values of a run, up to its checkpoint, for the model card."""
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
    head = dict(run.module.hparams["head"])
    if head["kind"] != "sampled":
        del head["num_sampled"]
    recipe = {
        **{name: run.module.hparams.get(name) for name in RECIPE},
        **{f"head.{name}": value for name, value in head.items()},
        "total_batch_size": run.record.batch_size,
        **{name: data.get(name) for name in ("strength", "augmentation")},
        **{name: trainer.get(name) for name in ("max_epochs", "accumulate_grad_batches", "devices", "precision")},
        "seed": run.config.get("seed_everything"),
        "optimiser steps taken": steps,
        "versions": ", ".join(f"{name} {version}" for name, version in run.record.versions.items()),
    }
    curves = read_curves(run.folder, steps)
    last = {name: curves[name][max(curves[name])] for name in TRAINING if name in curves}
    training = {f"{name} ({TRAINING[name]})": Score(value) for name, value in last.items()}
    return RunFacts(_known(about), _known(recipe), training, read_scores(run.folder))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
