"""The memory estimate against what a process takes, and the run that stops before it takes too much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TinyNet, each_device, image_data
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from diet_lightning import DIETModule, HeadConfig
from diet_lightning.__main__ import main
from diet_lightning.errors import ConfigurationError
from diet_lightning.objective.memory_estimate import estimate_memory
from diet_lightning.training.trainer_checks import check_memory
from diet_lightning.utilities.device_memory import GIB, available_memory

LARGE_N = Path(__file__).parents[2] / "benchmarks/large_n.py"


@pytest.mark.slow
@each_device
@pytest.mark.parametrize(("kind", "bits"), [("dense", 32), ("fused", 32), ("fused", 8), ("sampled", 32)])
def test_estimate_is_what_a_run_takes(kind, bits, device):
    command = [sys.executable, LARGE_N, "--num-samples", "300000", "--backbone", "resnet8", "--image-size", "8"]
    options = [
        "--batch-size",
        "32",
        "--steps",
        "2",
        "--device",
        device,
        "--head",
        kind,
        "--moment-bits",
        str(bits),
    ]
    # so that malloc gives back what is freed, instead of keeping more of it the busier the machine is
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=250, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # a CPU's is the resident memory of the process, which other things change too
    assert abs(found["head_over_estimate"] - 1.0) <= (0.1 if device == "cpu" else 0.05), found
    estimate = estimate_memory(kind, 300_000, 128, 32, moment_bits=bits, device=device)
    assert f"Head, {kind}, N=300,000 × K=128: {estimate} on each device." in done.stderr


counts, dims, batches = st.integers(2, 10**7), st.integers(1, 4096), st.integers(1, 4096)


@given(counts, dims, batches, st.integers(2, 64))
def test_estimates_compare_as_the_kinds_do(count, dim, batch, devices):
    dense, fused = (estimate_memory(name, count, dim, batch) for name in ("dense", "fused"))
    assert dense.weights == fused.weights == count * dim * 4
    assert (dense.gradient, fused.gradient) == (dense.weights, 0)
    assert dense.moments == 2 * dense.weights
    sharded = estimate_memory("sharded", count, dim, batch, devices)
    assert sharded.weights * devices < dense.weights + devices * dim * 4
    assert estimate_memory("sharded", count, dim, batch, 1).total == dense.total
    assert estimate_memory("dense", count, dim, batch, devices).gradient == 2 * dense.gradient


def test_a_head_that_does_not_fit_is_refused_with_the_kind_that_does(make_trainer, monkeypatch):
    def fit(kind, left, **options):
        monkeypatch.setattr("diet_lightning.training.trainer_checks.available_memory", lambda device: left)
        module = DIETModule(TinyNet(), head=HeadConfig(kind), **options)
        make_trainer(max_steps=1).fit(module, image_data())
        return module

    dense, fused = (estimate_memory(name, 48, 12, 16, num_sampled=8192).total for name in ("dense", "fused"))
    assert fused < dense
    assert fit("dense", dense).is_built
    with pytest.raises(ConfigurationError, match=r"N=48 × K=12 takes .* as head.kind='dense', but cpu has .* 'fused'"):
        fit("dense", dense - 1)
    with pytest.raises(ConfigurationError, match=r"more devices with `head.kind` 'sharded'"):
        fit("fused", 0)
    with pytest.raises(ConfigurationError, match=r"takes .* as head.kind='dense'"):  # its rows exist already
        fit("dense", dense - 48 * 12 * 4 - 1, num_samples=48, input_shape=[3, 8, 8])
    assert fit("dense", dense - 48 * 12 * 4, num_samples=48, input_shape=[3, 8, 8]).is_built


def test_available_memory_is_the_systems():
    left = available_memory(torch.device("cpu"))
    assert left is not None
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < left < int(line.split()[1]) * 1024
    assert available_memory(torch.device("meta")) is None


def test_command_prints_every_kind(capsys):
    assert main(["memory", "--num-samples", "1281167", "--embed-dim=2048", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert f"{1_281_167 * 2048 * 4 / GIB:.3f} GiB" in printed
    assert all(name in printed for name in ("dense", "fused", "sharded", "sampled"))
    assert main(["memory", "--num_samples", "1000", "--devices", "2"]) == 0
    printed = capsys.readouterr().out
    assert "sharded" in printed
    assert "fused" not in printed


def test_command_refuses_a_size_of_nothing(capsys):
    assert main(["memory", "--num-samples", "0"]) == 1
    assert "diet: error: Expected argument `num_samples` to be at least 1, but got 0." in capsys.readouterr().err


def test_several_processes_are_not_sent_to_a_kind_for_one(monkeypatch):
    class Two:
        world_size = num_devices = 2
        accumulate_grad_batches, precision = 1, "32-true"
        datamodule, train_dataloader = None, DataLoader(range(8), batch_size=8)

        class strategy:
            root_device = torch.device("cpu")

    sizes = {"num_samples": 10**6, "embed_dim": 64, "batch_size": 8, "num_sampled": 64}
    estimates = {name: estimate_memory(name, **sizes, devices=2).total for name in ("dense", "sharded", "sampled")}
    assert 2 * estimates["sampled"] < 2 * estimates["dense"]
    for left, cure in (
        (2 * estimates["sharded"], "'sharded', which takes"),
        (2 * estimates["sharded"] - 1, "take more devices"),
    ):
        monkeypatch.setattr("diet_lightning.training.trainer_checks.available_memory", lambda device, left=left: left)
        with pytest.raises(ConfigurationError, match=cure) as caught:
            check_memory(HeadConfig(num_sampled=64), 10**6, 64, Two(), held=0)
        assert "sampled" not in str(caught.value)
    left = 2 * estimates["sampled"]  # enough for one of them in each process, which it cannot serve
    monkeypatch.setattr("diet_lightning.training.trainer_checks.available_memory", lambda device: left)
    with pytest.raises(ConfigurationError, match=r"set `head.kind` to 'sharded'"):
        check_memory(HeadConfig(num_sampled=64), 10**6, 64, Two(), held=0)
