"""A workaround for a bug of oneDNN, which writes past the memory of strided 1×1 convolutions with few channels."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

MIN_CHANNELS = 16  # float32 values in the widest vector register; the bug needs fewer input channels than this


def unstride_pointwise(model: nn.Module) -> list[str]:
    """Makes strided 1×1 convolutions of few channels read every s-th pixel and convolve those with a stride of 1.

    Outputs, weights and their names stay the same. On a CPU, with the channels-last memory format, oneDNN's gradient of the
    input of such a layer writes past the end of its memory (docs/convolution_fault.md). A contiguous input is not enough,
    since `torch.compile` chooses the channels-last format by itself.

    Args:
        model: Any network; the layers' `stride` is changed in place, and a forward pre-hook is added. Subclasses of
            torch's convolutions are covered; direct calls of `torch.nn.functional.conv2d` are not.

    Returns:
        The names of the layers that were changed.
    """
    changed = []
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        is_unpadded = layer.padding == "valid" or not any(layer.padding)
        is_strided_pointwise = max(layer.kernel_size) == 1 < max(layer.stride) and is_unpadded
        if is_strided_pointwise and layer.in_channels // layer.groups < MIN_CHANNELS:
            layer.register_forward_pre_hook(partial(_take_every, layer.stride))
            layer.stride = (1,) * len(layer.stride)
            changed.append(name)
    return changed


def _take_every(stride: tuple[int, ...], layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """A copy of every s-th position of the input: a quarter of it at the usual stride of 2."""
    x: Tensor = inputs[0]
    positions: tuple[Any, ...] = (..., *(slice(None, None, step) for step in stride))
    return (x[positions], *inputs[1:])
