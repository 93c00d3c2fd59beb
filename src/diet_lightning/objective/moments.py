"""AdamW's moments of the head, in 32 or 8 bits per number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

PARTS = ("exp_avg", "exp_avg_root")
DTYPE = torch.float8_e4m3fn
MOST, LEAST = torch.finfo(DTYPE).max, torch.finfo(DTYPE).smallest_normal / 8  # the smallest positive one is subnormal


class Moments:
    """AdamW's two moments of W, shape ``(N, K)``, as `torch.optim.AdamW` keeps them in its state."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def new(self) -> dict[str, Tensor]:
        """Moments of 0, as they stand in the optimiser's state."""
        return {name: torch.zeros_like(self._weight) for name in ("exp_avg", "exp_avg_sq")}

    @contextmanager
    def rows(self, state: dict[str, Tensor], start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Both moments of the rows start … stop-1, ``(stop - start, K)``, to be changed in place before the context ends."""
        yield state["exp_avg"][start:stop], state["exp_avg_sq"][start:stop]


class Moments8bit(Moments):
    """AdamW's two moments of W in 8 bits per number, with one float scale per row.

    Numbers are stored as `torch.float8_e4m3fn`, in units of 1/448 of the largest in their row: with a relative error of at
    most 6 % over four and a half decades, and a larger one over a further decade. The moments of a row decay by a common
    factor while its sample is not in the batch, and the scale follows exactly. The second moment is stored as its square
    root, which is never rounded to 0: a first moment divided by a second one of 0 would give a step of 1 / eps.
    """

    def new(self) -> dict[str, Tensor]:
        """As `Moments.new`."""
        state = {}
        for part in PARTS:
            state[part] = torch.zeros_like(self._weight, dtype=DTYPE)
            state[f"{part}_scale"] = torch.zeros(len(self._weight), 1, device=self._weight.device)
        return state

    @contextmanager
    def rows(self, state: dict[str, Tensor], start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Moments.rows`; the moments are rounded to 8 bits when the context ends."""
        scales = [state[f"{part}_scale"][start:stop] for part in PARTS]
        average, root = (state[part][start:stop].to(self._weight.dtype) for part in PARTS)
        average *= scales[0]
        square = root.clamp_min_(LEAST).mul_(scales[1]).square_()
        yield average, square
        for part, scale, values in zip(PARTS, scales, (average, square.sqrt_()), strict=True):
            scale.copy_(torch.linalg.vector_norm(values, math.inf, dim=1, keepdim=True) / MOST)
            state[part][start:stop] = values.div_(scale.clamp_min(torch.finfo(scale.dtype).tiny))

    def keep_dtype(self, optimizer: Optimizer) -> None:
        """Makes `optimizer.load_state_dict` keep the 8-bit dtype, which it would otherwise cast to the dtype of W."""
        taken: dict[str, Any] = {}

        def take(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            keys = [key for group in state_dict["param_groups"] for key in group["params"]]
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            place = next((key for key, parameter in zip(keys, own, strict=False) if parameter is self._weight), None)
            taken.update(state_dict["state"].get(place, {}))
            rest = {key: value for key, value in state_dict["state"].items() if key != place}
            return {**state_dict, "state": rest}

        def put(optimizer: Optimizer) -> None:
            if taken:
                optimizer.state[self._weight] = {
                    name: value.to(self._weight.device, copy=True) for name, value in taken.items()
                }
            taken.clear()

        optimizer.register_load_state_dict_pre_hook(take)
        optimizer.register_load_state_dict_post_hook(put)
