"""How images of any size become inputs of one size: kept whole, fitted, or cropped at random."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from diet_lightning.utilities.seeding import derive_seed

Array = NDArray[Any]
Size = Sequence[int]  # height and width
FitMode = Literal["crop", "pad", "squash"]
ATTEMPTS = 10  # attempts of torchvision to draw a box before it uses the fallback
BOX_NUMBERS = 2 * ATTEMPTS + 2  # random numbers of a box: areas, ratios, top and left
NUM_NUMBERS = 2 * BOX_NUMBERS + 11  # random numbers of an image
FLIP = 2 * BOX_NUMBERS + 1  # the one that decides on the flip
STORED = 1.5  # size to which larger images are reduced when they are stored, in sizes of the network's input
LONG_SIDES = 4  # only the middle of a longer image is stored, so that memory is bounded


def random_numbers(generator: np.random.Generator, count: int, world: int = 1, rank: int = 0) -> Array:
    """The numbers that decide on the augmentation of one rank's images of a step.

    Sample j of rank r is sample ``j * world + r`` of the step, so the numbers do not depend on the number of ranks.

    Args:
        generator: Source of randomness.
        count: Number of images of this rank, B.
        world: Number of ranks.
        rank: This rank.

    Returns:
        Shape ``(NUM_NUMBERS, B)``, float32, uniform in [0, 1).
    """
    # drawn by NumPy, which takes a tenth of torch's time for such small arrays
    return generator.random((NUM_NUMBERS, count * world), dtype=np.float32)[:, rank::world]


def random_boxes(
    numbers: Array, size: Any, scale: Sequence[float], ratio: Sequence[float], strict: bool = False
) -> tuple[Array, Array]:
    """Draws boxes with torchvision's distribution: the first of ten that fits.

    Args:
        numbers: Shape ``(BOX_NUMBERS, B)``.
        size: Height and width of the images, two numbers or two arrays ``(B,)``.
        scale: Range of the box's area as a fraction of the image's.
        ratio: Range of the box's width / height.
        strict: Whether the box must be smaller than the image.

    Returns:
        Boxes ``(B, 4)``: top, left, height, width in pixels; and whether one of ten fits, ``(B, 1)``.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    area = (numbers[:ATTEMPTS] * np.float32(scale[1] - scale[0]) + np.float32(scale[0])) * (size[0] * size[1])
    aspect = np.exp(numbers[ATTEMPTS : 2 * ATTEMPTS] * np.float32(high - low) + np.float32(low))
    width, height = np.sqrt(area * aspect).round(), np.sqrt(area / aspect).round()
    slack = int(strict)
    fits = (width > 0) & (height > 0) & (width <= size[1] - slack) & (height <= size[0] - slack)
    pick = fits.argmax(axis=0), np.arange(numbers.shape[1])
    width, height = width[pick], height[pick]
    top = np.floor(numbers[-2] * (size[0] - height + 1))
    left = np.floor(numbers[-1] * (size[1] - width + 1))
    return np.stack([top, left, height, width], axis=1), fits[pick][:, None]


def central_boxes(size: Any, ratio: Sequence[float]) -> Array:
    """Torchvision's fallback: the largest central boxes within the range of ratios, ``(B, 4)`` or ``(4,)``."""
    height, width = (np.asarray(side, np.float32) for side in size)
    narrow, wide = width / height < ratio[0], width / height > ratio[1]
    box_height = np.where(narrow, np.round(width / ratio[0]), height)
    box_width = np.where(wide, np.round(height * ratio[1]), width)
    boxes = np.stack([(height - box_height) // 2, (width - box_width) // 2, box_height, box_width], axis=-1)
    return boxes.astype(np.float32)


def covering_size(size: Size, out: Size) -> tuple[int, int]:
    """The smallest size of the same aspect ratio that covers `out`, rounded as torchvision does."""
    (height, width), (rows, columns) = size, out
    if height * columns <= width * rows:
        return rows, int(rows * width / height)
    return int(columns * height / width), columns


def crop_image(image: Tensor, box: Sequence[int], out: Size, mirror: bool) -> Tensor:
    """A box of an image, resized with antialiased bilinear weights.

    Args:
        image: Shape ``(C, H, W)``.
        box: Top, left, height and width in pixels.
        out: Height and width of the result.
        mirror: Whether to mirror left and right.

    Returns:
        Shape ``(C, *out)``, of the same dtype.
    """
    top, left, height, width = box
    part: Tensor = tv.resize(image[:, top : top + height, left : left + width], list(out), antialias=True)
    return part.flip(2) if mirror else part


class Geometry(ABC):
    """What becomes of each image of a batch, whatever its size."""

    def at(self, position: Sequence[int], count: int) -> Geometry:
        """The geometry of one step.

        Args:
            position: (seed, epoch, step).
            count: Number of images of this rank.
        """
        return self

    @abstractmethod
    def reduction(self, n: int, size: Size) -> float:
        """By how much image n of the batch may be reduced while it is decoded.

        Args:
            n: Place of the image in the batch.
            size: Its height and width before it is reduced.
        """

    @abstractmethod
    def apply(self, n: int, image: Tensor, size: Size) -> Tensor:
        """Changes image n of the batch.

        Args:
            n: Place of the image in the batch.
            image: Shape ``(C, H, W)``.
            size: Its height and width before it was reduced.

        Returns:
            Shape ``(C, H', W')``, of the same dtype.
        """

    def stacked(self, images: Iterable[Tensor]) -> Tensor:
        """Images of several sizes, each ``(C, H, W)``, changed to one size: ``(B, C, H', W')``."""
        changed = [self.apply(n, image, image.shape[1:]) for n, image in enumerate(images)]
        return torch.stack(changed)


@dataclass(frozen=True)
class Whole(Geometry):
    """The whole image, reduced if it is larger than 1.5 times the network's input: what memory and caches hold.

    Attributes:
        out: Height and width of the network's input.
    """

    out: tuple[int, ...]

    def reduction(self, n: int, size: Size) -> float:
        """As for `Geometry`."""
        return min(side / (STORED * wanted) for side, wanted in zip(size, self.out, strict=True))

    def apply(self, n: int, image: Tensor, size: Size) -> Tensor:
        """As for `Geometry`."""
        middle = self._middle(image.shape[1:])
        if middle != tuple(image.shape[1:]):
            image = tv.center_crop(image, list(middle))
        stored = self.stored_size(size)  # the sides of a reduced image are rounded, and so is their ratio
        return image if stored == middle else tv.resize(image, list(stored), antialias=True)

    def stored_size(self, size: Size) -> tuple[int, int]:
        """Height and width of the stored image."""
        size = self._middle(size)
        return size if self.reduction(0, size) <= 1.0 else covering_size(size, self.side)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width that stored images cover at least, if they are not smaller themselves."""
        height, width = (round(STORED * side) for side in self.out)
        return height, width

    def _middle(self, size: Size) -> tuple[int, int]:
        """The part of a very long image that is kept."""
        ratio = LONG_SIDES * STORED * self.reduction(0, size)
        height, width = (min(side, round(ratio * wanted)) for side, wanted in zip(size, self.out, strict=True))
        return height, width


@dataclass(frozen=True)
class Fit(Geometry):
    """The image as evaluation sees it: stored as `Whole` does, and then fitted to the network's input.

    Attributes:
        out: Height and width of the network's input.
        mode: ``"crop"`` resizes it to cover the input and cuts out the centre, ``"pad"`` resizes it to lie inside and adds black
            borders, ``"squash"`` changes its aspect ratio.
    """

    out: tuple[int, ...]
    mode: FitMode = "crop"

    def reduction(self, n: int, size: Size) -> float:
        """As for `Geometry`."""
        return Whole(self.out).reduction(n, size)

    def apply(self, n: int, image: Tensor, size: Size) -> Tensor:
        """As for `Geometry`, so that images decoded on the fly and stored ones give the same."""
        return self.batch(Whole(self.out).apply(n, image, size))

    def batch(self, images: Tensor) -> Tensor:
        """Stored images of one size, ``(..., H, W)``, fitted."""
        if tuple(images.shape[-2:]) == self.out:
            return images
        height, width = images.shape[-2:]
        size = self.out
        if self.mode == "crop":
            size = covering_size((height, width), self.out)
        elif self.mode == "pad":
            ratio = min(self.out[0] / height, self.out[1] / width)
            size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
        fitted: Tensor = tv.center_crop(tv.resize(images, list(size), antialias=True), list(self.out))
        return fitted


@dataclass(frozen=True, eq=False)
class RandomCrops(Geometry):
    """Random resized crops of whole images and horizontal flips, with torchvision's distribution.

    Attributes:
        scale: Range of the crop's area as a fraction of the image's.
        ratio: Range of the crop's width / height.
        flip: Probability of a horizontal flip.
        out: Height and width of the network's input.
        world: Number of ranks.
        rank: This rank.
        numbers: From `random_numbers`, for the images of one step; set by `at`.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    out: tuple[int, ...]
    world: int = 1
    rank: int = 0
    numbers: Array = field(default_factory=lambda: np.zeros((NUM_NUMBERS, 0), np.float32))

    def at(self, position: Sequence[int], count: int) -> RandomCrops:
        """As for `Geometry`."""
        generator = np.random.default_rng(derive_seed(*position))
        return replace(self, numbers=random_numbers(generator, count, self.world, self.rank))

    def reduction(self, n: int, size: Size) -> float:
        """As for `Geometry`: the crop stays at least as large as the network's input."""
        _, _, height, width = self._box(n, size)
        return float(min(height / self.out[0], width / self.out[1]))

    def apply(self, n: int, image: Tensor, size: Size) -> Tensor:
        """As for `Geometry`."""
        box = self._box(n, size)
        scale = np.array(image.shape[1:]) / np.array(size)
        low = (box[:2] * scale).round().clip(0, np.array(image.shape[1:]) - 1)
        sides = (box[2:] * scale).round().clip(1, np.array(image.shape[1:]) - low)
        top, left, height, width = (int(value) for value in (*low, *sides))
        return crop_image(image, (top, left, height, width), self.out, bool(self.numbers[FLIP, n] < self.flip))

    def _box(self, n: int, size: Size) -> Array:
        box: Array = crop_boxes(self.numbers[:, n : n + 1], size, self.scale, self.ratio)[0]
        return box


def crop_boxes(numbers: Array, size: Any, scale: Sequence[float], ratio: Sequence[float]) -> Array:
    """Boxes of random resized crops.

    Args:
        numbers: From `random_numbers`, ``(NUM_NUMBERS, B)``.
        size: Height and width of the images, two numbers or two arrays ``(B,)``.
        scale: Range of the crop's area as a fraction of the image's.
        ratio: Range of the crop's width / height.

    Returns:
        Shape ``(B, 4)``: top, left, height, width in pixels.
    """
    boxes, found = random_boxes(numbers[:BOX_NUMBERS], size, scale, ratio)
    return boxes if found.all() else np.where(found, boxes, central_boxes(size, ratio))
