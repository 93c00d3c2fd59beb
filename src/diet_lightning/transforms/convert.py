"""Samples and images as tensors: upright, opaque, scaled to bytes or to 0 … 1, with the channels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

WIDE_MODES = ("I", "F")  # and those that begin with "I;16": more than 8 bits
INTEGER_MAXIMA = (1, 255, 1023, 4095, 16383, 65535)  # of 1, 8, 10, 12, 14 and 16 bits
CURES: dict[tuple[type, ...], str] = {  # types of samples → how to make images of them
    (bytes, bytearray): "decode it in the data set, as PIL.Image.open(io.BytesIO(value))",
    (str, PathLike): "open it in the data set, as PIL.Image.open(path), or use csv:FILE with a table of paths",
    (Mapping,): "for a data set of Hugging Face, decode the column: cast_column(name, datasets.Image())",
    (
        list,
        tuple,
    ): "convert it in the data set, numpy.asarray(value), one of Hugging Face by with_format('numpy'), or choose one "
    "of several images",
}
OPERATIONS = {  # EXIF orientation → what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PixelFormat:
    """How images become stored tensors of 8 bits.

    Attributes:
        color: ``"rgb"`` for three channels, ``"gray"`` for one, ``"auto"`` for one of gray images and three of others.
        background: Color behind transparent pixels.
        value_range: The values that become 0 and 255 in images of more than 8 bits; None for the range of 16 bits.
    """

    color: Literal["auto", "rgb", "gray"] = "rgb"
    background: str = "white"
    value_range: tuple[float, float] | None = None

    def to_values(self, image: Image.Image) -> Tensor:
        """An image with its own values.

        Args:
            image: Of any mode.

        Returns:
            uint8 ``(3, H, W)``, or ``(1, H, W)``, as `color` says; of images of more than 8 bits one channel, int32 or
            float32 ``(1, H, W)``.
        """
        image = upright(image)
        if is_wide(image.mode) and "transparency" not in image.info:
            array = np.asarray(image)
            return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int32))[None]
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, self.background), image)
        is_gray = self.color == "gray" or (self.color == "auto" and image.mode in ("1", "L"))
        mode = "L" if is_gray else "RGB"
        array = np.array(image if image.mode == mode else image.convert(mode))
        return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))

    def to_stored(self, values: Tensor) -> Tensor:
        """Values as 8 bits, with the channels of `color`.

        Args:
            values: ``(C, H, W)``; uint8, or any other dtype, which `value_range` scales.

        Returns:
            uint8 ``(C, H, W)``: one gray channel becomes three equal ones if `color` is ``"rgb"``, and three become one
            if it is ``"gray"``; other numbers of channels stay.

        Raises:
            ValueError: If a value is not finite, or the range of the values is unknown.
        """
        if values.dtype != torch.uint8:
            values = to_bytes(values, self.value_range or _default_range(values))
        if self.color == "rgb" and len(values) == 1:
            return values.expand(3, -1, -1)
        return tv.rgb_to_grayscale(values) if self.color == "gray" and len(values) == 3 else values

    def __call__(self, image: Image.Image) -> Tensor:
        """An image as uint8 ``(3, H, W)`` or ``(1, H, W)``."""
        return self.to_stored(self.to_values(image))


def _default_range(values: Tensor) -> tuple[float, float]:
    if values.is_floating_point() or values.max() > INTEGER_MAXIMA[-1] or values.min() < 0:
        raise ValueError(
            f"its values from {values.min().item():.6g} to {values.max().item():.6g} have an unknown range; set "
            "`read.value_range` to the values that become black and white"
        )
    return 0.0, float(INTEGER_MAXIMA[-1])


def is_wide(mode: str) -> bool:
    """Whether Pillow's mode has more than 8 bits per channel."""
    return mode in WIDE_MODES or mode.startswith("I;16")


def orientation(image: Image.Image) -> Any:
    """The EXIF orientation of an image, 1 to 8; 1 without one."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise exceptions of any type, and viewers ignore them
        return 1


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says that it is looked at."""
    image.load()  # Pillow turns some formats itself while it decodes
    operation = OPERATIONS.get(orientation(image))
    return image if operation is None else image.transpose(operation)


def infer_value_range(low: float, high: float, integers: bool) -> tuple[float, float]:
    """The values that become 0 and 1, from the smallest and largest value of a data set.

    Args:
        low: Smallest value.
        high: Largest value.
        integers: Whether the values are of an integer type.

    Returns:
        0 and the largest value of 1, 8, 10, 12, 14 or 16 bits if the data use at least half of it, are integers of 8 bits or
        have a single value of 0 to 1; else the smallest and largest value themselves.
    """
    if low >= 0.0:
        largest = next((each for each in INTEGER_MAXIMA if high <= each), None)
        used = high - low
        if largest is not None and (
            used >= largest / 2 or (used == 0 and largest == 1) or (integers and largest <= 255)
        ):
            return 0.0, float(largest)
    return low, high if high > low else low + 1.0


def to_unit(values: Tensor, value_range: Sequence[float]) -> Tensor:
    """Values scaled so that a range becomes 0 … 1; values outside of it become 0 or 1.

    Args:
        values: Any shape and dtype.
        value_range: Two increasing numbers.

    Returns:
        float32, of the same shape.

    Raises:
        ValueError: If a value is not finite.
    """
    low, high = value_range
    wide = values.double() if values.dtype in (torch.int32, torch.int64, torch.float64) else values.float()
    if not bool(wide.isfinite().all()):
        raise ValueError("it has values that are NaN or infinite")
    return wide.sub(low).div_(high - low).clamp_(0.0, 1.0).float()


def to_bytes(values: Tensor, value_range: Sequence[float]) -> Tensor:
    """Values scaled so that a range becomes 0 … 255, rounded to uint8; as `to_unit`."""
    return to_unit(values, value_range).mul_(255.0).round_().to(torch.uint8)


def channels_last(shape: Sequence[int]) -> bool | None:
    """Whether an image of this shape has its channels last.

    Args:
        shape: Three sizes, ``(C, H, W)`` or ``(H, W, C)``.

    Returns:
        None where both are possible: channels are fewer than both sides, or the sides are equal.
    """
    first, middle, last = shape
    if first < min(middle, last) or (middle == last != first and middle > 1):
        return False
    return True if last < min(first, middle) or (first == middle != last and first > 1) else None


def to_tensor(value: Any, pixels: PixelFormat | None = None) -> Tensor:
    """A tensor unchanged, an array as a tensor, a PIL image as `PixelFormat` makes it.

    Raises:
        TypeError: For other types.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Image.Image):
        return (pixels or PixelFormat())(value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(native(value))
    cure = next((cure for kinds, cure in CURES.items() if isinstance(value, kinds)), "convert it in the data set")
    raise TypeError(f"expected a tensor, an array or a PIL image, but got {type(value).__name__}: {cure}")


def native(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous array that can be written to, of the machine's byte order and of a dtype that torch computes with."""
    dtype = array.dtype.newbyteorder("=")
    wider: dict[str, Any] = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "float16": np.float32}
    return np.require(array, wider.get(dtype.name, dtype), ["C_CONTIGUOUS", "WRITEABLE"])


def tensor_bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor of any dtype, including those that NumPy lacks."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """A stored image, ``(C, H, W)``, as pixels to show: ``(H, W)`` of one channel, else ``(H, W, 3)``, uint8."""
    if image.dtype != torch.uint8:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low).clamp(min=1e-12) * 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
