"""The command for a GPU runs all its parts, here at tiny sizes on the CPU, and a part that fails stops no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(out, *options, **environment):
    command = ["bash", ROOT / "benchmarks/gpu.sh", out, "--device", "cpu", "--smoke", *options]
    env = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=290)


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_cifar(folder, split, count):
    """Random images as the Hugging Face Hub stores CIFAR-10."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = []
    for pixels in np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
        Image.fromarray(pixels).save(file := BytesIO(), "png")
        images.append({"bytes": file.getvalue(), "path": None})
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"img": images, "label": [n % 10 for n in range(count)]})
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def test_smoke_run_leaves_numbers_and_figures_of_every_part(tmp_path):
    for split, count in (("train", 64), ("test", 32)):
        write_cifar(tmp_path / "cifar/plain_text", split, count)
    done = run(tmp_path / "out", "--cifar", "cifar")
    out = tmp_path / "out"
    assert done.returncode == 0, done.stdout + (out / "log.txt").read_text()
    assert len(list(out.iterdir())) == 8
    for name in ("throughput", "large_n", "cifar"):
        assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    throughput, heads = lines_of(out / "throughput.jsonl"), lines_of(out / "large_n.jsonl")
    assert [line["case"] for line in throughput] == ["backbone", "diet"]
    assert [(line["head"], line["moment_bits"], line["num_samples"]) for line in heads] == [
        (*kind, count)
        for count in (1000, 4000)
        for kind in (("dense", 32), ("fused", 32), ("fused", 8), ("sampled", 32))
    ]
    curve, tests = lines_of(out / "cifar.jsonl"), lines_of(out / "tests.jsonl")
    assert [line["epoch"] for line in curve] == list(range(1, curve[0]["epochs"] + 1))
    assert all(0 <= line[name] <= 1 for line in curve for name in ("probe_top1", "knn_top1"))
    assert [line["outcome"] for line in tests] == ["passed"] * 5
    assert "5 tests passed, 0 failed, 0 skipped" in done.stdout


def test_parts_that_fail_are_told_and_stop_no_other(tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text(
        '#!/bin/sh\ncase "$*" in *large_n.py*) echo \'{"error": "x"}\';; *) echo broken >&2; exit 3;; esac\n'
    )
    interpreter.chmod(0o755)
    done = run(tmp_path / "out", PYTHON=str(interpreter))
    assert done.returncode == 1
    for line in ("throughput", "tests"):
        assert any(told.startswith(line) and "failed with status 3" in told for told in done.stdout.splitlines())
    assert any(told.startswith("large_n") and told.endswith("passed") for told in done.stdout.splitlines())
    assert "cifar                  left out: --cifar names the folder" in done.stdout
    assert lines_of(tmp_path / "out/large_n.jsonl") == [{"error": "x"}]
    assert "[tests] broken" in (tmp_path / "out/log.txt").read_text()


@pytest.mark.parametrize("arguments", [[], ["out", "--fast"], ["out", "--cifar"]])
def test_wrong_arguments_print_the_usage(arguments):
    done = subprocess.run(["bash", ROOT / "benchmarks/gpu.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: bash benchmarks/gpu.sh OUT")
