"""Strided 1×1 convolutions of few channels: the same function, and no write past their memory."""

from __future__ import annotations

import copy
import ctypes.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diet_lightning.backbones import create_backbone
from diet_lightning.backbones.pointwise import unstride_pointwise

pytestmark = pytest.mark.slow

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@given(
    st.sampled_from([1, 2, 3]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.booleans(),
    st.data(),
    st.integers(0, 2**31 - 1),
)
def test_layer_computes_the_same_with_the_same_gradients(dims, channels, groups, bias, data, seed):
    stride = tuple(data.draw(st.lists(st.integers(1, 3), min_size=dims, max_size=dims)))
    size = data.draw(st.lists(st.integers(1, 7), min_size=dims, max_size=dims))
    torch.manual_seed(seed)
    layer = CONVOLUTIONS[dims](groups * channels, groups * 2, 1, stride, bias=bias, groups=groups).double()
    x = torch.randn(2, groups * channels, *size, dtype=torch.float64, requires_grad=True)
    expected = getattr(nn.functional, f"conv{dims}d")(x, layer.weight, layer.bias, stride, groups=groups)
    expected_gradients = torch.autograd.grad(expected.square().sum(), [x, *layer.parameters()])
    changed = unstride_pointwise(nn.Sequential(layer))
    assert changed == (["0"] if max(stride) > 1 else [])
    found = layer(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), [x, *layer.parameters()]), expected_gradients)


def test_only_strided_pointwise_layers_of_few_channels_are_changed():
    layers = {
        "strided": nn.Conv2d(15, 4, 1, 2),
        "grouped": nn.Conv2d(32, 8, 1, 2, groups=4),
        "volume": nn.Conv3d(3, 4, 1, (1, 2, 2)),
        "subclass": type("Custom", (nn.Conv2d,), {})(8, 4, 1, 3),
        "wide": nn.Conv2d(16, 4, 1, 2),
        "unit": nn.Conv2d(8, 4, 1),
        "large": nn.Conv2d(8, 4, 3, 2),
        "padded": nn.Conv2d(8, 4, 1, 2, padding=1),
        "transposed": nn.ConvTranspose2d(8, 4, 1, 2),
    }
    model = nn.ModuleDict(layers)
    names = list(model.state_dict())
    assert unstride_pointwise(model) == ["strided", "grouped", "volume", "subclass"]
    assert unstride_pointwise(model) == []  # once
    assert list(model.state_dict()) == names


def test_changed_network_can_be_copied_and_pickled():
    backbone = create_backbone("resnet8_w4", (3, 16, 16)).eval()
    x = torch.rand(2, 3, 16, 16)
    for again in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(again(x), backbone(x))


# -- memory ------------------------------------------------------------------------------------------------------------

CHECKING_ALLOCATOR = ctypes.util.find_library("c_malloc_debug") or "libc_malloc_debug.so.0"
WITH_SHORTCUTS = ["resnet8_w1", "resnet8_w4", "resnet8_w8", "resnet8_w12", "resnet8_w15", "resnet8"]
FAMILIES = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_0", "regnet_x_400mf", "mnasnet0_5"]
TIMM = ["resnet10t", "test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "test_nfnet", "test_vit"]


def is_checked() -> bool:
    """Whether a process can be given glibc's allocator that looks behind each piece of memory when it is freed."""
    environment = {**os.environ, "LD_PRELOAD": CHECKING_ALLOCATOR, "MALLOC_CHECK_": "3"}
    done = subprocess.run(["/bin/true"], env=environment, capture_output=True, text=True)
    return done.returncode == 0 and not done.stderr


@pytest.mark.skipif(not is_checked(), reason="needs glibc's libc_malloc_debug")
@pytest.mark.parametrize(
    ("names", "side"),
    [(WITH_SHORTCUTS, 224), (WITH_SHORTCUTS, 32), (FAMILIES, 64), ([f"timm/{name}" for name in TIMM], 160)],
)
def test_no_backbone_writes_past_its_memory(names, side):
    cases = [f"{name},{side},{dtype}" for name in names for dtype in ("float32", "bfloat16")]
    environment = {**os.environ, "LD_PRELOAD": CHECKING_ALLOCATOR, "MALLOC_CHECK_": "3"}
    command = [sys.executable, Path(__file__).with_name("heap_check.py"), *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}\n{done.stderr[:2000]}"
    assert done.stdout.splitlines() == [*cases, "done"]
