"""The values of samples of more than 8 bits: found in the training split, and compared with the other splits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import infer_value_range

MAX_CLIPPED = 0.05  # share of clipped values from which a split is not on the scale of the training samples
SMALL_PART = 1 / 8  # of the range: images whose values use less of it look flat
COMMON = 0.998  # share of the values that are called common
PART_VALUES, ALL_VALUES = 2**12, 2**22  # values that are drawn of each part, and of all, for the common ones


@dataclass(frozen=True)
class ValueSurvey:
    """What the values of a split are.

    Attributes:
        split: Its name.
        low: Smallest value.
        high: Largest value.
        integers: Whether all are of integer types.
        common: Interval of the middle 99.8 % of the values.
        clipped: Share of the values outside of the range that was asked for; 0 without one.
    """

    split: str
    low: float
    high: float
    integers: bool
    common: tuple[float, float]
    clipped: float

    @classmethod
    def of(
        cls, split: str, parts: Iterable[tuple[int, Tensor]], value_range: tuple[float, float] | None
    ) -> ValueSurvey | None:
        """Looks at samples.

        Args:
            split: Name of the split.
            parts: Position of the first sample, and the values of samples, ``(n, ...)``.
            value_range: Values outside of it are counted as clipped; None counts none.

        Returns:
            None without a part.

        Raises:
            DataError: If a value is not finite.
        """
        low, high, integers = float("inf"), float("-inf"), True
        outside = total = 0
        drawn: list[Tensor] = []
        generator = torch.Generator().manual_seed(0)
        for start, part in parts:
            values = part.to(torch.uint8) if part.dtype == torch.bool else part
            least, most = values.min().item(), values.max().item()
            if not (abs(least) < float("inf") and abs(most) < float("inf")):
                rows = values.reshape(len(values), -1).isfinite().all(1)
                raise DataError(
                    f"Sample {start + int((~rows).nonzero()[0])} of the {split} split has values that are NaN or infinite: "
                    "correct or leave it out."
                )
            low, high = min(low, least), max(high, most)
            integers &= not values.is_floating_point()
            if value_range is not None and (least < value_range[0] or most > value_range[1]):
                outside += int(((values < value_range[0]) | (values > value_range[1])).sum())
            total += values.numel()
            if len(drawn) * PART_VALUES < ALL_VALUES:
                picked = torch.randint(values.numel(), (min(values.numel(), PART_VALUES),), generator=generator)
                drawn.append(values.reshape(-1)[picked].double())
        if not drawn:
            return None
        ends = np.quantile(torch.cat(drawn).numpy(), [(1 - COMMON) / 2, (1 + COMMON) / 2])
        return cls(split, low, high, integers, (float(ends[0]), float(ends[1])), outside / total)

    def range_found(self) -> tuple[tuple[float, float], list[str]]:
        """The values that become 0 and 1, and what to say of them."""
        found = infer_value_range(self.low, self.high, self.integers)
        notes = []
        if self.integers or found != (0.0, 1.0):
            notes.append(
                f"Values from {self.low:.6g} to {self.high:.6g} are scaled: {found[0]:.6g} becomes 0 and {found[1]:.6g} becomes "
                "1; set read.value_range for another range."
            )
        low, high = self.common
        used = (high - low) / (found[1] - found[0])
        if 0.0 < used < SMALL_PART:
            notes.append(
                f"{COMMON:.1%} of the values lie between {low:.6g} and {high:.6g}, in {used:.2g} of the range from "
                f"{found[0]:.6g} to {found[1]:.6g}: images are flat, and stored with 8 bits they keep about "
                f"{round(255 * used) + 1} gray levels; set read.value_range to the values that are to be black and white."
            )
        return found, notes

    def clipped_notes(self, value_range: tuple[float, float], is_given: bool) -> list[str]:
        """A sentence on the values that are clipped, if there are any.

        Args:
            value_range: The values that become 0 and 1.
            is_given: Whether the user has set them.

        Raises:
            DataError: If the training samples' range cannot scale this split.
        """
        if not self.clipped:
            return []
        said = (
            f"{100 * self.clipped:.3g} % of the values of the {self.split} split, which go from {self.low:.6g} to {self.high:.6g}, lie "
            f"outside of the range from {value_range[0]:.6g} to {value_range[1]:.6g}"
        )
        if self.clipped > MAX_CLIPPED and not is_given:
            raise DataError(
                f"{said} of the training samples: store all splits on one scale, or set `read.value_range` to a "
                "range for all."
            )
        return [f"{said} and are clipped; set read.value_range for another range."]


class RangeCheck:
    """Compares the values of each image that is read with the range by which it is scaled."""

    def __init__(self) -> None:
        self._is_told = False

    def __call__(self, values: Tensor, value_range: tuple[float, float] | None) -> None:
        """Warns, once, of values that are clipped.

        Args:
            values: Of one image.
            value_range: The values that become 0 and 1; None if all images that were looked at have 8 bits.

        Raises:
            ValueError: If the range is None and the image has more than 8 bits.
        """
        if values.dtype == torch.uint8:
            return
        if value_range is None:
            raise ValueError("it has more than 8 bits, unlike the images looked at first; set `read.value_range`")
        low, high = value_range
        if not self._is_told and (values.min() < low or values.max() > high):
            self._is_told = True
            rank_zero_warn(
                f"An image has values from {values.min():.6g} to {values.max():.6g}: those outside of {low:.6g} to "
                f"{high:.6g} are clipped; set `read.value_range`."
            )
