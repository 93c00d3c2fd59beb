"""SampleForm: how the samples of a custom data set become stored ones."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diet_lightning.data.array_format import ArrayFormat, format_for
from diet_lightning.data.read_config import READ, ReadConfig
from diet_lightning.data.value_survey import RangeCheck
from diet_lightning.transforms.convert import PixelFormat, to_tensor


class SampleForm:
    """Converts the inputs of a data set one by one; all must be of the kind of the first.

    Args:
        first: Input of sample 0, as the data set gives it.
        read: How samples are read, with the range of values that was found; None where only `values` are needed.

    Attributes:
        dtype: Dtype of arrays and tensors; None for PIL images.
        arrays: How arrays and tensors are stored; None for PIL images.
        notes: One sentence for each decision.
    """

    def __init__(self, first: Any, read: ReadConfig | None = None) -> None:
        used = read or READ
        self.pixels = PixelFormat(used.color, used.background, used.pixel_range)
        self.arrays: ArrayFormat | None = None
        self.notes: list[str] = []
        self.dtype: torch.dtype | None = None
        self._kind = "a PIL image"
        self._check_range = RangeCheck()
        if not isinstance(first, Image.Image):
            tensor = to_tensor(first)
            self.dtype, self._kind = tensor.dtype, _kind(tensor)
            if read is not None:
                self.arrays, self.notes = format_for(tensor.shape, tensor.dtype, read)

    @property
    def is_image(self) -> bool:
        """Whether stored inputs are images."""
        return self.arrays is None or self.arrays.channels is not None

    def is_wide(self, values: Tensor) -> bool:
        """Whether a sample is an image of more than 8 bits."""
        return values.dtype != torch.uint8 and (
            values.ndim == 3 or (values.ndim == 2 and not values.is_floating_point())
        )

    def values(self, value: Any) -> Tensor:
        """An input with its own values.

        Raises:
            ValueError: If it is of another kind than sample 0's.
        """
        is_pil = isinstance(value, Image.Image)
        values = self.pixels.to_values(value) if is_pil else to_tensor(value)
        kind = "a PIL image" if is_pil else _kind(values)
        if kind != self._kind:
            raise ValueError(f"it is {kind}, but sample 0 is {self._kind}: convert all samples alike")
        return values

    def __call__(self, value: Any) -> Tensor:
        """An input as it is stored: images ``(C, H, W)``.

        Raises:
            ValueError: If it is of another kind than sample 0's, or has values that cannot be scaled.
        """
        values = self.values(value)
        if self.arrays is None or self.arrays.value_range is not None:
            self._check_range(values, self.pixels.value_range)
        return self.pixels.to_stored(values) if self.arrays is None else self.arrays(values)


def _kind(values: Tensor) -> str:
    held = "uint8" if values.dtype == torch.uint8 else "floats" if values.is_floating_point() else "integers"
    return f"an array of {held} with {values.ndim} axes"
