"""`diet demo`."""

from __future__ import annotations

import json
import time

import torch
from rich.console import Console
from rich.table import Table

from diet_lightning.backbones.factory import create_backbone
from diet_lightning.cli.lightning import run_lightning
from diet_lightning.evaluation.probes import EvaluationConfig, evaluate_features, extract_features

SHOTS, TRIALS = 5, 20


def demo(run_dir: str | None = None, epochs: int = 40) -> None:
    """Trains DIET on scikit-learn's digits without their labels, and compares linear probes on its features.

    Prints the accuracy of linear probes on raw pixels and on the features of an untrained backbone and of DIET's, and one JSON
    object in the last line.

    Args:
        run_dir: Folder of the run; None for a new one below runs/.
        epochs: Number of epochs.
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
    batches = [list(data.eval_batches("train")), list(data.eval_batches("test"))]
    train_labels, test_labels = (torch.cat([batch.label for batch in each]).numpy() for each in batches)
    table = Table(
        "features",
        f"all {data.num_samples} labels",
        f"{SHOTS} labels per class (mean ± sd of {TRIALS} trials)",
        title=f"Linear probe on {len(test_labels)} held-out digits, top-1",
    )
    figures: dict[str, float] = {}
    for key, (name, network) in features.items():
        train, test = (extract_features(network, (batch.input for batch in each)) for each in batches)
        config = EvaluationConfig(c=1.0, shots=(SHOTS,), num_trials=TRIALS)
        scores, _ = evaluate_features(train, train_labels, test, test_labels, config)
        top1, few = scores["linear_top1"], scores[f"{SHOTS}shot_top1"]
        figures |= {f"{key}_top1": top1.value, f"{key}_{SHOTS}shot": few.value}
        table.add_row(name, f"{top1.value:.1%}", f"{few.value:.1%} ± {few.std:.1%}")
    Console().print(table)
    print(f"The training used no labels. Its curves: {cli.run_dir / 'figure.png'}")
    figures["seconds"] = time.perf_counter() - start
    print(json.dumps({**{name: round(value, 4) for name, value in figures.items()}, "run_dir": str(cli.run_dir)}))
