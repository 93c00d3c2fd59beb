"""Strided 1×1 convolutions of few channels, kept from a fault of oneDNN's that writes past their memory."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

MIN_CHANNELS = 16  # float32 numbers in the widest vector register; with as many the kernel's writes are whole registers


def unstride_pointwise(model: nn.Module) -> list[str]:
    """Makes strided 1×1 convolutions of few channels read every s-th pixel and convolve those with a stride of 1.

    That is the same function, with the same weights under the same names. It is needed since on a CPU the gradient of
    such a layer's input, in channels-last layout, is computed by a kernel of oneDNN's that writes whole vector registers:
    with fewer channels than a register holds, past the end of the memory (docs/convolution_fault.md).
    `torch.compile` chooses that layout by itself, so the layer's input layout alone is not enough.

    Args:
        model: Any network; the layers' `stride` is changed in place, and a forward pre-hook is added. Subclasses of
            torch's convolutions are covered, calls of `torch.nn.functional.conv2d` in the user's own code are not.

    Returns:
        The names of the layers that were changed.
    """
    changed = []
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            continue
        is_strided_pointwise = max(layer.kernel_size) == 1 < max(layer.stride) and _is_unpadded(layer)
        if is_strided_pointwise and layer.in_channels // layer.groups < MIN_CHANNELS:
            layer.register_forward_pre_hook(partial(_take_every, layer.stride))
            layer.stride = (1,) * len(layer.stride)
            changed.append(name)
    return changed


def _is_unpadded(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    return layer.padding == "valid" or not any(layer.padding)  # "same" is not defined with a stride


def _take_every(stride: tuple[int, ...], layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Every s-th position of the input, a copy of a quarter of it with the usual stride of 2."""
    x: Tensor = inputs[0]
    positions: tuple[Any, ...] = (..., *(slice(None, None, step) for step in stride))
    return (x[positions], *inputs[1:])
