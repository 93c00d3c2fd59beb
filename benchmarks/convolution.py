"""Errors of strided 1×1 convolutions on this CPU, as torch computes them and after `unstride_pointwise`.

Each case runs in a separate process, since memory may be corrupted. It gives the largest error of output and gradients
against float64, relative to the largest number, or the signal that ended the process. With glibc's checking allocator it
also finds writes that would have no visible effect:

    LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3 python benchmarks/convolution.py

ONEDNN_MAX_CPU_ISA=AVX2 limits the instruction set. Prints one JSON line per row: layout, dtype, kernel, stride, size → channels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal

import torch
from torch import nn

from diet_lightning.backbones.pointwise import unstride_pointwise

CHANNELS = (3, 4, 6, 8, 9, 12, 15, 16, 17, 24, 32)
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def largest_error(channels: int, size: int, stride: int, layout: str, dtype: torch.dtype, repaired: bool) -> float:
    torch.manual_seed(0)
    form = LAYOUTS[layout]
    layer = nn.Conv2d(channels, 2 * channels, 1, stride, bias=False)
    x = torch.randn(2, channels, size, size)
    exact_x, exact_w = x.double().requires_grad_(), layer.weight.detach().double().requires_grad_()
    exact = nn.functional.conv2d(exact_x, exact_w, stride=stride)
    gradient = torch.randn(exact.shape, dtype=torch.float64)
    exact.backward(gradient)
    if repaired:
        unstride_pointwise(nn.Sequential(layer))
    layer, x = layer.to(memory_format=form), x.contiguous(memory_format=form).requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = layer(x)
    found.backward(gradient.to(found.dtype).contiguous(memory_format=form))
    pairs = [(found, exact), (x.grad, exact_x.grad), (layer.weight.grad, exact_w.grad)]
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


def in_a_process(*case: object) -> float | str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writing, str(largest_error(*case)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        result = stream.read()
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else float(f"{float(result):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[14, 28, 56, 112, 224])
    parser.add_argument("--strides", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = itertools.product((False, True), LAYOUTS, (torch.float32, torch.bfloat16), options.strides, options.sizes)
    for repaired, layout, dtype, stride, size in cases:
        row = {str(c): in_a_process(c, size, stride, layout, dtype, repaired) for c in CHANNELS}
        facts = {
            "repaired": repaired,
            "layout": layout,
            "dtype": str(dtype).split(".")[1],
            "stride": stride,
            "size": size,
        }
        machine = {"torch": torch.__version__, "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all")}
        print(json.dumps({**facts, **machine, "error": row}), flush=True)


if __name__ == "__main__":
    main()
