"""Trains backbones for a step in a process whose allocator aborts on a write past the end: run by test_pointwise.py.

Prints a line before each step, so that the last one names the network that corrupted memory.
"""

import faulthandler
import sys
import warnings

import torch

from diet_lightning.backbones import create_backbone

faulthandler.enable()
torch.set_num_threads(1)
warnings.simplefilter("ignore")


def train_step(name: str, side: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, (3, side, side))
    backbone.lay_out(channels_last=True)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        features = backbone(torch.randn(2, 3, side, side, requires_grad=True))
    features.float().square().mean().backward()
    assert torch.isfinite(features).all()


if __name__ == "__main__":  # the doctests import this file
    for case in sys.argv[1:]:
        name, side, dtype = case.split(",")
        print(case, flush=True)
        train_step(name, int(side), getattr(torch, dtype))
    print("done")
