"""Figures of what `gpu.sh` has measured so far: OUT/NAME.png from the lines of OUT/NAME.jsonl.

python benchmarks/gpu_figures.py OUT
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from diet_lightning.figures.style import COLOURS, MARKERS, new_figure, save_figure


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The measurements, without those that failed."""
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in found if "error" not in line]


def draw_throughput(out: Path) -> None:
    networks = defaultdict(list)
    for line in lines_of(out / "throughput.jsonl"):
        networks[f"{line['backbone'].removeprefix('timm/')}, {line['size']} px"].append(line)
    if not networks:
        return
    figure, axes = new_figure(3.5 * len(networks), 3, columns=len(networks), squeeze=False)
    for axis, (name, lines) in zip(axes[0], networks.items(), strict=True):
        bars = axis.barh([line["case"] for line in lines], [line["images_per_s"] for line in lines], color=COLOURS[0])
        axis.bar_label(bars, [f"{line['of_backbone']:.2f}" for line in lines], padding=3)
        axis.margins(x=0.2)
        axis.invert_yaxis()
        axis.set_xlabel("images per second")
        axis.set_title(name, fontsize="medium")
    figure.suptitle("Whole steps; the number is the ratio to the backbone alone")
    save_figure(figure, out / "throughput.png")


def draw_large_n(out: Path) -> None:
    heads = defaultdict(list)
    for line in lines_of(out / "large_n.jsonl"):
        heads[line["head"] + (", 8 bits" if line["moment_bits"] == 8 else "")].append(line)
    if not heads:
        return
    figure, axes = new_figure(9, 3.5, columns=2, grid=True)
    for colour, marker, (name, lines) in zip(COLOURS, MARKERS, heads.items(), strict=False):
        counts = [line["num_samples"] for line in lines]
        axes[0].plot(counts, [1e3 * line["step_s"] for line in lines], marker, ls="-", color=colour, label=name)
        axes[1].plot(counts, [line["peak_mb"] / 1024 for line in lines], marker, ls="-", color=colour)
    for axis, label in zip(axes, ("ms per step", "peak memory (GiB)"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="N", ylabel=label)
    axes[0].legend(frameon=False)
    save_figure(figure, out / "large_n.png")


def draw_cifar(out: Path) -> None:
    lines = lines_of(out / "cifar.jsonl")
    if not lines:
        return
    figure, axis = new_figure(6, 3.5, grid=True)
    seconds = [line["seconds"] for line in lines]
    for colour, name, label in zip(COLOURS, ("probe_top1", "knn_top1"), ("linear probe", "20-NN"), strict=False):
        axis.plot(seconds, [100 * line[name] for line in lines], color=colour, label=label)
    axis.set(xlabel="seconds of training", ylabel="top-1 accuracy (%)", title="CIFAR-10, test images")
    axis.legend(frameon=False)
    save_figure(figure, out / "cifar.png")


if __name__ == "__main__":
    for draw in (draw_throughput, draw_large_n, draw_cifar):
        draw(Path(sys.argv[1]))
