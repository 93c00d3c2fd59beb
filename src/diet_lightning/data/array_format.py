"""ArrayFormat: what the axes and values of arrays mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diet_lightning.data.read_config import ReadConfig
from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import channels_last, to_bytes, to_unit

BYTE_RANGES = ((0.0, 1.0), (0.0, 255.0))  # of integers that 8 bits hold exactly
LONG_SIDES = 4  # integers of two axes, one of them longer than this many times the other, may be signals


@dataclass(frozen=True)
class ArrayFormat:
    """How arrays become stored samples.

    Attributes:
        channels: Position of the channels in images; ``"none"`` for gray images ``(H, W)``, None for other inputs.
        value_range: The values of images that become 0 and 1; None keeps the values.
        to_uint8: Store images with 8 bits, which is exact for integers in one of `BYTE_RANGES`.
    """

    channels: Literal["first", "last", "none"] | None = None
    value_range: tuple[float, float] | None = None
    to_uint8: bool = False

    def __call__(self, values: Tensor) -> Tensor:
        """One sample or a batch in the form in which samples are stored.

        Args:
            values: One sample, or several with a dimension in front.

        Returns:
            Images ``(C, H, W)``, uint8 or float32 in [0, 1]; other inputs as uint8 if they are, else as float32.

        Raises:
            ValueError: If a value of an image is not finite.
        """
        if self.channels is None:
            return values if values.dtype == torch.uint8 else values.float()
        if self.channels == "none":
            values = values.unsqueeze(-3)
        elif self.channels == "last":
            values = values.movedim(-1, -3).contiguous()
        if self.value_range is None:
            return values
        return to_bytes(values, self.value_range) if self.to_uint8 else to_unit(values, self.value_range)


def position_of_channels(
    shape: Sequence[int], dtype: torch.dtype, read: ReadConfig
) -> Literal["first", "last", "none"] | None:
    """Where the channels of samples are.

    Args:
        shape: Shape of one sample.
        dtype: Its dtype.
        read: How arrays are read.

    Returns:
        ``"none"`` for two axes of integers, gray images; None for inputs that are not images.

    Raises:
        DataError: If the axes can be read both ways.
    """
    if len(shape) == 2 and not dtype.is_floating_point:
        if dtype != torch.uint8 and max(shape) > LONG_SIDES * min(shape):
            raise DataError(
                f"Samples of shape {tuple(shape)} that hold integers may be signals or gray images: convert signals to floats, "
                "a.astype('float32'), and give images an axis for the channel, a[:, None]."
            )
        return "none"
    if len(shape) != 3:
        return None
    if read.channels != "auto":
        return read.channels
    last = channels_last(shape)
    if last is None:
        raise DataError(
            f"Samples of shape {tuple(shape)} may have their channels first or last: set `read.channels` to 'first' or "
            "'last'."
        )
    return "last" if last else "first"


def format_for(shape: Sequence[int], dtype: torch.dtype, read: ReadConfig) -> tuple[ArrayFormat, list[str]]:
    """The format of a data set, and what it decides.

    Args:
        shape: Shape of one sample.
        dtype: Its dtype.
        read: How arrays are read; `value_range` is given or found by now, or None for training samples of 8 bits.

    Returns:
        The format, and one sentence for each decision.

    Raises:
        DataError: If the samples can be read in several ways.
    """
    channels = position_of_channels(shape, dtype, read)
    if channels is None or (dtype == torch.uint8 and read.value_range is None):
        value_range = None
    elif read.value_range is None:
        raise DataError(f"Samples of this split are {dtype}, but training samples are uint8: store both alike.")
    else:
        value_range = read.pixel_range
    notes = []
    if len(shape) == 2 and dtype != torch.uint8 and max(shape) <= LONG_SIDES * min(shape):
        if channels is None:
            notes.append(
                f"Samples of shape {tuple(shape)} that hold floats are signals, whose values are kept; give gray images an axis "
                "for the channel, a[:, None]."
            )
        else:
            notes.append(
                f"Samples of shape {tuple(shape)} that hold integers are gray images; convert signals to floats, "
                "a.astype('float32')."
            )
    if channels == "last" and read.channels == "auto":
        height, width, count = shape
        notes.append(
            f"Arrays of shape {tuple(shape)} have their channels last, {count} of {height} × {width} pixels; if not, set "
            "read.channels to first."
        )
    return ArrayFormat(channels, value_range, not dtype.is_floating_point and value_range in BYTE_RANGES), notes
