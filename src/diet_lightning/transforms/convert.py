"""Samples and images as tensors, RGB, squares, pixels and bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv


def to_tensor(value: Any) -> Tensor:
    """A tensor unchanged, an array as a tensor, a PIL image as uint8 ``(3, H, W)``.

    Raises:
        TypeError: For other types.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Image.Image):
        return torch.from_numpy(np.array(to_rgb(value))).permute(2, 0, 1)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise TypeError(f"expected a tensor, an array or a PIL image, but got {type(value).__name__}")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: 16 bits are scaled to 8, where Pillow would clip them, and transparency is dropped."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"an image of mode {image.mode} has an unknown range; convert it to 8 or 16 bits")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def tensor_bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor of any dtype, including those that NumPy lacks."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def to_square(image: Tensor, size: int) -> Tensor:
    """The centre of an image ``(C, H, W)`` whose shorter side is resized to `size` pixels: ``(C, size, size)``."""
    square: Tensor = tv.center_crop(tv.resize(image, [size], antialias=True), [size] * 2)
    return square


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """A stored image, ``(C, H, W)``, as pixels to show: ``(H, W)`` of one channel, else ``(H, W, 3)``, uint8."""
    if image.dtype != torch.uint8:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low).clamp(min=1e-12) * 255).to(torch.uint8)
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
