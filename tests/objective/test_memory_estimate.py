"""The memory bill against what a process takes, and the run that stops before it takes too much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TinyNet, image_data
from hypothesis import given
from hypothesis import strategies as st

from diet_lightning import DIETModule
from diet_lightning.__main__ import main
from diet_lightning.errors import ConfigurationError
from diet_lightning.objective.memory_estimate import head_bill
from diet_lightning.training.trainer_checks import check_memory
from diet_lightning.utilities.device_memory import GIB, available_memory

LARGE_N = Path(__file__).parents[2] / "benchmarks/large_n.py"


@pytest.mark.parametrize(("placement", "bits"), [("dense", 32), ("fused", 32), ("fused", 8), ("sampled", 32)])
def test_bill_is_what_a_run_takes(placement, bits):
    command = [sys.executable, LARGE_N, "--num-samples", "300000", "--backbone", "resnet8", "--image-size", "8"]
    options = [
        "--batch-size",
        "32",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--placement",
        placement,
        "--moment-bits",
        str(bits),
    ]
    # so that malloc gives back what is freed, instead of keeping more of it the busier the machine is
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=250, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.9 <= found["head_over_bill"] <= 1.1, found
    bill = head_bill(placement, 300_000, 128, 32, moment_bits=bits)
    assert f"Head, {placement}, N=300,000 × K=128: {bill} on each device." in done.stderr


counts, dims, batches = st.integers(2, 10**7), st.integers(1, 4096), st.integers(1, 4096)


@given(counts, dims, batches, st.integers(2, 64))
def test_bills_compare_as_the_placements_do(count, dim, batch, devices):
    dense, fused = (head_bill(name, count, dim, batch) for name in ("dense", "fused"))
    assert dense.weights == fused.weights == count * dim * 4
    assert (dense.gradient, fused.gradient) == (dense.weights, 0)
    assert dense.moments == 2 * dense.weights
    spread = head_bill("sharded", count, dim, batch, devices)
    assert spread.weights * devices < dense.weights + devices * dim * 4
    assert head_bill("sharded", count, dim, batch, 1).total == dense.total
    assert head_bill("dense", count, dim, batch, devices).gradient == 2 * dense.gradient


def test_a_head_that_does_not_fit_is_refused_with_the_placement_that_does(make_trainer, monkeypatch):
    def fit(placement, left, **options):
        monkeypatch.setattr("diet_lightning.training.trainer_checks.available_memory", lambda device: left)
        module = DIETModule(TinyNet(), placement=placement, **options)
        make_trainer(max_steps=1).fit(module, image_data())
        return module

    dense, fused = (head_bill(name, 48, 12, 16, num_sampled=8192).total for name in ("dense", "fused"))
    assert fused < dense
    assert fit("dense", dense).is_built
    with pytest.raises(ConfigurationError, match=r"N=48 × K=12 takes .* as placement='dense', but cpu has .* 'fused'"):
        fit("dense", dense - 1)
    with pytest.raises(ConfigurationError, match=r"more devices with `placement` 'sharded'"):
        fit("fused", 0)
    with pytest.raises(ConfigurationError, match=r"takes .* as placement='dense'"):  # its rows exist already
        fit("dense", dense - 48 * 12 * 4 - 1, num_samples=48, input_shape=[3, 8, 8])
    assert fit("dense", dense - 48 * 12 * 4, num_samples=48, input_shape=[3, 8, 8]).is_built


def test_available_memory_is_the_systems():
    left = available_memory(torch.device("cpu"))
    assert left is not None
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < left < int(line.split()[1]) * 1024
    assert available_memory(torch.device("meta")) is None


def test_command_prints_every_placement(capsys):
    assert main(["bill", "--num-samples", "1281167", "--embed-dim=2048", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert f"{1_281_167 * 2048 * 4 / GIB:.3f} GiB" in printed
    assert all(name in printed for name in ("dense", "fused", "sharded", "sampled"))
    assert main(["bill", "--num_samples", "1000", "--devices", "2"]) == 0
    printed = capsys.readouterr().out
    assert "sharded" in printed
    assert "fused" not in printed


def test_command_refuses_a_size_of_nothing(capsys):
    assert main(["bill", "--num-samples", "0"]) == 1
    assert "diet: error: Expected argument `num_samples` to be at least 1, but got 0." in capsys.readouterr().err


def test_several_processes_are_not_sent_to_a_placement_of_one(monkeypatch):
    class Two:
        world_size = num_devices = 2
        accumulate_grad_batches, precision = 1, "32-true"

        class strategy:
            root_device = torch.device("cpu")

    sizes = {"num_samples": 10**6, "embed_dim": 64, "batch_size": 8, "num_sampled": 64}
    bills = {name: head_bill(name, **sizes, devices=2).total for name in ("dense", "sharded", "sampled")}
    assert 2 * bills["sampled"] < 2 * bills["dense"]
    for left, cure in (
        (2 * bills["sharded"], "'sharded', which takes"),
        (2 * bills["sharded"] - 1, "take more devices"),
    ):
        monkeypatch.setattr("diet_lightning.training.trainer_checks.available_memory", lambda device, left=left: left)
        with pytest.raises(ConfigurationError, match=cure) as caught:
            check_memory("dense", sizes, Two(), on_cpu=False, held=0)
        assert "sampled" not in str(caught.value)
    left = 2 * bills["sampled"]  # enough for one of them in each process, which it cannot serve
    monkeypatch.setattr("diet_lightning.training.trainer_checks.available_memory", lambda device: left)
    with pytest.raises(ConfigurationError, match="set `placement` to 'sharded'"):
        check_memory("dense", sizes, Two(), on_cpu=False, held=0)
