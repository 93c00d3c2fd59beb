"""RaggedImages: a batch or a data set of images of several sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class RaggedImages:
    """Images of several heights and widths, one after another in one tensor.

    Args:
        flat: All pixels, shape ``(sum of C·H·W,)``; each image is contiguous, with its channels first.
        sizes: Height and width of each image, int64, shape ``(N, 2)``.
        channels: C.

    Attributes:
        ndim: 4, as of a tensor ``(N, C, H, W)``.
    """

    ndim = 4

    def __init__(self, flat: Tensor, sizes: Tensor, channels: int) -> None:
        self.flat, self.sizes, self.channels = flat, sizes, channels
        self._ends = [0, *(sizes.prod(dim=1) * channels).cumsum(0).tolist()]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the pixels."""
        return self.flat.dtype

    @property
    def device(self) -> torch.device:
        """Device of the pixels."""
        return self.flat.device

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return self.flat.nbytes

    def __len__(self) -> int:
        """N."""
        return len(self.sizes)

    def __getitem__(self, index: Any) -> Any:
        """The image ``(C, H, W)`` at an index, not copied; or a copy of those at several, as `join_images` makes it."""
        if isinstance(index, int):
            if not 0 <= index < len(self):
                raise IndexError(index)
            height, width = self.sizes[index].tolist()
            return self.flat[self._ends[index] : self._ends[index + 1]].view(self.channels, height, width)
        return join_images([self[n] for n in torch.as_tensor(index).tolist()])

    def __iter__(self) -> Iterator[Tensor]:
        """The images, in order."""
        return (self[n] for n in range(len(self)))

    def to(self, device: torch.device, **options: Any) -> RaggedImages:
        """The images on a device."""
        return RaggedImages(self.flat.to(device, **options), self.sizes, self.channels)

    def pin_memory(self) -> RaggedImages:
        """The images in pinned memory."""
        return RaggedImages(self.flat.pin_memory(), self.sizes, self.channels)


def from_flat(flat: Tensor, sizes: Tensor, channels: int) -> Tensor | RaggedImages:
    """Pixels of images one after another as a tensor ``(N, C, H, W)`` if all have one size; arguments as for `RaggedImages`."""
    if bool((sizes == sizes[0]).all()):
        return flat.view(len(sizes), channels, *sizes[0].tolist())
    return RaggedImages(flat, sizes, channels)


def join_images(images: list[Tensor]) -> Tensor | RaggedImages:
    """Images ``(C, H, W)`` with the same C and dtype, copied as for `from_flat`.

    The list is emptied meanwhile, so that a large data set is in memory only once.
    """
    sizes = torch.tensor([image.shape[1:] for image in images], dtype=torch.int64)
    channels = len(images[0])
    flat = images[0].new_empty(int(sizes.prod(dim=1).sum()) * channels)
    end = flat.numel()
    while images:
        image = images.pop()
        flat[end - image.numel() : end] = image.flatten()
        end -= image.numel()
    return from_flat(flat, sizes, channels)
