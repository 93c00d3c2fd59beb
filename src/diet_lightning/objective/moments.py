"""AdamW's moments of the head, in 32 or in 8 bits a number."""

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
MOST, LEAST = torch.finfo(DTYPE).max, torch.finfo(DTYPE).smallest_normal / 8  # the least above 0 is not normal


class Moments:
    """AdamW's two moments of W, as `torch.optim.AdamW` keeps them in its state.

    Args:
        weight: W, shape ``(N, K)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def new(self) -> dict[str, Tensor]:
        """Moments of 0, as they stand in the optimiser's state."""
        return {name: torch.zeros_like(self._weight) for name in ("exp_avg", "exp_avg_sq")}

    @contextmanager
    def rows(self, state: dict[str, Tensor], start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """First and second moments of some rows, kept at the end.

        Args:
            state: As of `new`.
            start: First row.
            stop: Row after the last.

        Yields:
            Both moments, shape ``(stop - start, K)``, to be changed in place.
        """
        yield state["exp_avg"][start:stop], state["exp_avg_sq"][start:stop]


class Moments8bit(Moments):
    """AdamW's two moments of W in 8 bits a number, and a float a row.

    Numbers are kept as `torch.float8_e4m3fn`, in units of a 448th of their row's largest: to within 6 % over four and a half decades, more coarsely for one more.
    A row's moments fade together between the steps that its sample is in the batch, so that its own scale follows
    exactly. Of the second moment its square root is kept, and it is never rounded to 0: a first moment over a
    second of 0 would be a step as large as 1 / eps.

    Args:
        weight: W, shape ``(N, K)``.
    """

    def new(self) -> dict[str, Tensor]:
        """Moments of 0, as they stand in the optimiser's state."""
        state = {}
        for part in PARTS:
            state[part] = torch.zeros_like(self._weight, dtype=DTYPE)
            state[f"{part}_scale"] = torch.zeros(len(self._weight), 1, device=self._weight.device)
        return state

    @contextmanager
    def rows(self, state: dict[str, Tensor], start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Moments.rows`, rounded to 8 bits again at the end."""
        scales = [state[f"{part}_scale"][start:stop] for part in PARTS]
        average, root = (state[part][start:stop].to(self._weight.dtype) for part in PARTS)
        average *= scales[0]
        square = root.clamp_min_(LEAST).mul_(scales[1]).square_()
        yield average, square
        for part, scale, values in zip(PARTS, scales, (average, square.sqrt_()), strict=True):
            scale.copy_(torch.linalg.vector_norm(values, math.inf, dim=1, keepdim=True) / MOST)
            state[part][start:stop] = values.div_(scale.clamp_min(torch.finfo(scale.dtype).tiny))

    def keep_dtype(self, optimizer: Optimizer) -> None:
        """Makes `optimizer.load_state_dict` leave the 8 bits as they are; by itself it would cast them to W's dtype."""
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
