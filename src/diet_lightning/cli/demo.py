"""`diet demo`."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from diet_lightning.backbones.factory import create_backbone
from diet_lightning.cli.lightning import run_lightning
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.data.reading import Split
from diet_lightning.evaluation.probes import EvaluationConfig, evaluate_features, extract_features

SHOTS, TRIALS = 5, 20


def demo(run_dir: str | None = None, epochs: int = 40) -> None:
    """Trains DIET on embedded digits without their labels, and shows what the features are worth.

    Prints a table of linear probes on raw pixels, an untrained backbone and DIET's, and as the last line one JSON object.

    Args:
        run_dir: Folder of the run; None makes one below runs/.
        epochs: Length of the training.
    """
    start = time.perf_counter()
    args = ["fit", "--config", "digits", f"--trainer.max_epochs={epochs}"]
    cli = run_lightning(args + ([f"--run_dir={run_dir}"] if run_dir else []))
    data, model = cli.datamodule, cli.model
    torch.manual_seed(0)
    untrained = create_backbone(model.hparams["backbone"], data.input_shape)
    features = {
        "raw": ("raw pixels", torch.nn.Flatten()),
        "untrained": ("untrained backbone", untrained),
        "diet": ("DIET", model.backbone),
    }
    table = Table(title=f"Linear probe on {len(_labels(data, 'test'))} held-out digits, top-1")
    for column in (
        "features",
        f"all {data.num_samples} labels",
        f"{SHOTS} labels a class (mean ± sd of {TRIALS} trials)",
    ):
        table.add_column(column)
    figures: dict[str, Any] = {}
    labels = _labels(data, "train"), _labels(data, "test")
    for key, (name, network) in features.items():
        train = extract_features(network, (batch.input for batch in data.eval_batches("train")))
        test = extract_features(network, (batch.input for batch in data.eval_batches("test")))
        scores, _ = evaluate_features(
            train, labels[0], test, labels[1], EvaluationConfig(c=1.0, shots=(SHOTS,), num_trials=TRIALS)
        )
        top1, few = scores["linear_top1"], scores[f"{SHOTS}shot_top1"]
        figures |= {f"{key}_top1": top1.value, f"{key}_{SHOTS}shot": few.value}
        table.add_row(name, f"{top1.value:.1%}", f"{few.value:.1%} ± {few.std:.1%}")
    Console().print(table)
    print(f"The training saw no label. Its curves: {cli.run_dir / 'figure.png'}")
    figures |= {"seconds": time.perf_counter() - start, "run_dir": str(cli.run_dir)}
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}))


def _labels(data: DIETDataModule, split: Split) -> NDArray[Any]:
    return torch.cat([batch.label for batch in data.eval_batches(split)]).numpy()
