"""Commands beside Lightning's four: plain functions with typed arguments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from diet_lightning.backbones import create_backbone
from diet_lightning.bill import head_bill
from diet_lightning.cli import run_lightning
from diet_lightning.data.module import DIETDataModule, Split
from diet_lightning.errors import ConfigurationError
from diet_lightning.evaluation import extract_features, few_shot_top1, linear_top1
from diet_lightning.heads import HEADS, serves
from diet_lightning.memory import GIB

SHOTS, DRAWS = 5, 20


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
        f"{SHOTS} labels a class (mean ± sd of {DRAWS} draws)",
    ):
        table.add_column(column)
    figures: dict[str, Any] = {}
    labels = _labels(data, "train"), _labels(data, "test")
    for key, (name, network) in features.items():
        train = extract_features(network, (batch.input for batch in data.clean_batches("train")))
        test = extract_features(network, (batch.input for batch in data.clean_batches("test")))
        figures[f"{key}_top1"] = linear_top1(train, labels[0], test, labels[1])
        mean, spread = few_shot_top1(train, labels[0], test, labels[1], SHOTS, DRAWS)
        figures[f"{key}_{SHOTS}shot"] = mean
        table.add_row(name, f"{figures[f'{key}_top1']:.1%}", f"{mean:.1%} ± {spread:.1%}")
    Console().print(table)
    print(f"The training saw no label. Its curves: {cli.run_dir / 'figure.png'}")
    figures |= {"seconds": time.perf_counter() - start, "run_dir": str(cli.run_dir)}
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}))


def _labels(data: DIETDataModule, split: Split) -> NDArray[Any]:
    return torch.cat([batch.label for batch in data.clean_batches(split)]).numpy()


def bill(
    num_samples: int,
    embed_dim: int = 512,
    batch_size: int = 256,
    devices: int = 1,
    precision: Literal["32", "16"] = "32",
    device: Literal["cpu", "cuda"] = "cuda",
    num_sampled: int = 8192,
    moment_bits: Literal[8, 32] = 32,
) -> None:
    """Prints what the head takes of each device's memory, for every placement.

    Args:
        num_samples: N, the number of training samples.
        embed_dim: K, the dimension of the embeddings: 512 for ResNet-18, 2048 for ResNet-50.
        batch_size: Samples per step and device.
        devices: Devices of the run.
        precision: Bits of the matrix products; 16 for bf16-mixed.
        device: What they are.
        num_sampled: Rows drawn at each step by the placement sampled.
        moment_bits: Of AdamW's moments in the placement fused.
    """
    run: dict[str, Any] = {"product_bytes": int(precision) // 8, "device": device}
    run |= {"num_sampled": num_sampled, "moment_bits": moment_bits}
    sizes: dict[str, Any] = {
        "num_samples": num_samples,
        "embed_dim": embed_dim,
        "batch_size": batch_size,
        "devices": devices,
    }
    for name, value in {**sizes, "num_sampled": num_sampled}.items():
        if value < 1:
            raise ConfigurationError(f"Expected argument `{name}` to be at least 1, but got {value}.")
    table = Table(title=f"Head of {num_samples:,} × {embed_dim:,}, batch {batch_size} on each of {devices} {device}")
    for column in ("placement", "weights", "gradient", "moments", "work space", "on each device"):
        table.add_column(column, justify="left" if column == "placement" else "right")
    for placement in (name for name in HEADS if serves(name, devices)):
        found = head_bill(placement, **sizes, **run)
        parts = (found.weights, found.gradient, found.moments, found.workspace, found.total)
        table.add_row(placement, *(f"{part / GIB:.3f} GiB" for part in parts))
    Console().print(table)


COMMANDS: dict[str, Callable[..., Any]] = {"demo": demo, "bill": bill}


def run_command(args: Sequence[str]) -> None:
    """Runs a command.

    Args:
        args: Its name, then its arguments.
    """
    # --num-samples is --num_samples
    options = [arg if not arg.startswith("--") else _underscored(arg) for arg in args[1:]]
    auto_cli(COMMANDS[args[0]], args=options, as_positional=False, prog=f"diet {args[0]}")


def _underscored(flag: str) -> str:
    name, equals, value = flag[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
