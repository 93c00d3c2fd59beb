"""The paper's augmentation for whole batches, at one of four strengths: drawn on the CPU, applied on the batch's device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms.geometry import BOX_NUMBERS, RandomCrops, crop_boxes, random_boxes, random_numbers
from diet_lightning.transforms.operations import (
    apply_masked,
    color_jitter,
    gaussian_blur,
    grayscale,
    resized_crop,
    resized_crop_of_bytes,
)

Array = NDArray[Any]
LARGE = 48 * 48  # pixels per side from which a CPU is faster image by image; measured


class AugmentationParameters(NamedTuple):
    """The parameters drawn for a batch of B images; boxes are ``(top, left, height, width)`` in pixels.

    Attributes:
        crop: Box of the input that is resized to the output, ``(B, 4)``.
        flip: Whether to mirror left and right, ``(B,)`` bool.
        jitter: Whether the four colour operations apply, ``(B,)`` bool.
        brightness: Factor, ``(B,)``.
        contrast: Factor, ``(B,)``.
        saturation: Factor, ``(B,)``.
        hue: Shift as a fraction of the colour circle, ``(B,)``.
        gray: Whether to convert to grayscale, ``(B,)`` bool.
        blur: Whether to blur, ``(B,)`` bool.
        sigma: Standard deviation of the blur in pixels, ``(B,)``.
        erase: Box of the output that is erased, ``(B, 4)``; height 0 for none.
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    gray: Tensor
    blur: Tensor
    sigma: Tensor
    erase: Tensor

    def rows(self, start: int, stop: int) -> AugmentationParameters:
        """The parameters of some images."""
        return AugmentationParameters(*(field[start:stop] for field in self))

    def to(self, device: torch.device) -> AugmentationParameters:
        """The parameters on a device, sent there together."""
        if device.type == "cpu":
            return self
        columns = torch.cat([field.reshape(len(field), -1).float() for field in self], dim=1)
        widths = [field[:1].numel() for field in self]
        sent = torch.split(columns.to(device, non_blocking=True), widths, dim=1)
        return AugmentationParameters(
            *(part.view_as(field).to(field.dtype) for part, field in zip(sent, self, strict=True))
        )


class BatchAugmentation:
    """Augmentation at one of four strengths, with torchvision's distributions.

    0 none; 1 random resized crop and horizontal flip; 2 adds colour jitter and grayscale; 3 adds Gaussian blur and
    random erasing. Jitter takes brightness, contrast, saturation, hue in this order. One-channel images skip saturation,
    hue and grayscale; images of other than 1 or 3 channels skip all colour operations.

    Args:
        strength: 0 to 3.
        crop_scale: Range of the crop's area as a fraction of the image's.
        crop_ratio: Range of the crop's width / height.
        flip: Probability of a horizontal flip.
        jitter: Strength of brightness, contrast, saturation and hue.
        jitter_p: Probability of the jitter.
        gray_p: Probability of grayscale.
        blur_kernel: Width of the blur in pixels, odd.
        blur_sigma: Range of the blur's standard deviation in pixels.
        blur_p: Probability of the blur.
        erase_p: Probability of erasing.
        erase_scale: Range of the erased area as a fraction of the image's.
        erase_ratio: Range of the erased box's height / width.
        compiled: Run crop, jitter and blur through `torch.compile`, with dynamic batch sizes.

    Raises:
        ConfigurationError: If `strength` is not 0, 1, 2 or 3, or a range or probability is invalid.
    """

    def __init__(
        self,
        strength: int = 3,
        crop_scale: Sequence[float] = (0.08, 1.0),
        crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.2),
        jitter_p: float = 0.3,
        gray_p: float = 0.2,
        blur_kernel: int = 3,
        blur_sigma: Sequence[float] = (1.0, 2.0),
        blur_p: float = 0.2,
        erase_p: float = 0.25,
        erase_scale: Sequence[float] = (0.02, 0.33),
        erase_ratio: Sequence[float] = (0.3, 3.3),
        compiled: bool = False,
    ) -> None:
        if strength not in (0, 1, 2, 3):
            raise ConfigurationError(
                f"Expected argument `strength` to be 0, 1, 2 or 3, but got {strength}: 0 means none, 3 the "
                "paper's default."
            )
        ranges = {
            "crop_scale": crop_scale,
            "crop_ratio": crop_ratio,
            "blur_sigma": blur_sigma,
            "erase_scale": erase_scale,
            "erase_ratio": erase_ratio,
        }
        for name, pair in ranges.items():
            if not isinstance(pair, Sequence) or len(pair) != 2 or not 0.0 < pair[0] <= pair[1]:
                raise ConfigurationError(
                    f"Expected argument `{name}` to be two numbers, 0 < low <= high, but got {pair}."
                )
        for name, p in {
            "flip": flip,
            "jitter_p": jitter_p,
            "gray_p": gray_p,
            "blur_p": blur_p,
            "erase_p": erase_p,
        }.items():
            if not 0.0 <= p <= 1.0:
                raise ConfigurationError(f"Expected argument `{name}` to be a probability in [0, 1], but got {p}.")
        if not isinstance(jitter, Sequence) or len(jitter) != 4 or min(jitter) < 0.0 or jitter[3] > 0.5:
            raise ConfigurationError(
                "Expected argument `jitter` to be four strengths >= 0 (brightness, contrast, saturation, hue <= 0.5), but "
                f"got {jitter}."
            )
        if blur_kernel < 1 or blur_kernel % 2 == 0:
            raise ConfigurationError(f"Expected argument `blur_kernel` to be odd and positive, but got {blur_kernel}.")
        self.strength = strength
        self.crop_scale, self.crop_ratio, self.flip = crop_scale, crop_ratio, flip
        self.jitter, self.jitter_p, self.gray_p = jitter, jitter_p, gray_p
        self.blur_kernel, self.blur_sigma, self.blur_p = blur_kernel, blur_sigma, blur_p
        self.erase_p, self.erase_scale, self.erase_ratio = erase_p, erase_scale, erase_ratio
        operations: list[Callable[..., Tensor]] = [
            resized_crop,
            color_jitter,
            partial(gaussian_blur, kernel=blur_kernel),
        ]
        if compiled:
            operations = [torch.compile(operation, dynamic=True) for operation in operations]
        self._crop, self._jitter, self._blur = operations

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        out: tuple[int, int],
        generator: np.random.Generator,
        world: int = 1,
        rank: int = 0,
    ) -> AugmentationParameters:
        """Draws parameters for `count` images.

        Args:
            count: B.
            size: Height and width of the inputs.
            out: Height and width of the outputs.
            generator: Source of randomness.
            world: Number of ranks that share the step.
            rank: This rank.

        Returns:
            The parameters, on the CPU: they are the same for every device, and the images of an operation are known without
            synchronising. All parameters are drawn at every strength, so that strengths differ only by their operations.
        """
        numbers = random_numbers(generator, count, world, rank)
        uniform: Iterator[Array] = iter(numbers[2 * BOX_NUMBERS :])

        def between(low: float, high: float) -> Array:
            values: Array = next(uniform) * np.float32(high - low) + np.float32(low)
            return values

        def chance(p: float) -> Array:
            happens: Array = next(uniform) < p
            return happens

        # torchvision states the ratio of an erased box as height / width
        ratio = (1 / self.erase_ratio[1], 1 / self.erase_ratio[0])
        erase, found = random_boxes(numbers[BOX_NUMBERS : 2 * BOX_NUMBERS], out, self.erase_scale, ratio, strict=True)
        erase = erase * (found & chance(self.erase_p)[:, None])
        brightness, contrast, saturation, hue = self.jitter
        drawn = {
            "crop": crop_boxes(numbers, size, self.crop_scale, self.crop_ratio),
            "flip": chance(self.flip),
            "jitter": chance(self.jitter_p),
            "brightness": between(max(0.0, 1.0 - brightness), 1.0 + brightness),
            "contrast": between(max(0.0, 1.0 - contrast), 1.0 + contrast),
            "saturation": between(max(0.0, 1.0 - saturation), 1.0 + saturation),
            "hue": between(-hue, hue),
            "gray": chance(self.gray_p),
            "blur": chance(self.blur_p),
            "sigma": between(self.blur_sigma[0], self.blur_sigma[1]),
            "erase": erase,
        }
        return AugmentationParameters(**{name: torch.from_numpy(values) for name, values in drawn.items()})

    def crops(self, out: tuple[int, ...], world: int, rank: int) -> RandomCrops:
        """The crops and flips alone, for images that are cropped when they are read.

        Args:
            out: Height and width of the outputs.
            world: Number of ranks that share a step.
            rank: This rank.
        """
        scale, ratio = self.crop_scale, self.crop_ratio
        return RandomCrops((scale[0], scale[1]), (ratio[0], ratio[1]), self.flip, out, world, rank)

    def apply(
        self, images: Tensor, parameters: AugmentationParameters, out: tuple[int, int], cropped: bool = False
    ) -> Tensor:
        """Applies the operations of this strength, except for erasing, which follows normalisation.

        Args:
            images: Shape ``(B, C, H, W)``, uint8, or float with values in [0, 1].
            parameters: From `draw`.
            out: Height and width of the result.
            cropped: Whether the images were cropped and flipped when they were read.

        Returns:
            Shape ``(B, C, *out)``; float with values in [0, 1], or uint8 if only the crop was applied.
        """
        if self.strength == 0:
            return images
        crop, flip, _, brightness, contrast, saturation, hue, _, _, sigma, _ = parameters.to(images.device)
        if cropped:
            pass
        elif images.dtype == torch.uint8 and out[0] * out[1] > LARGE and images.device.type == "cpu":
            images = resized_crop_of_bytes(images, crop, flip, out)
        else:
            images = self._crop(images, crop, flip, out)
        if self.strength == 1:
            return images
        if images.dtype == torch.uint8:
            images = images.float().div_(255.0)
        if images.shape[1] in (1, 3):
            factors = [brightness, contrast, saturation, hue]
            images = apply_masked(self._jitter, images, parameters.jitter, factors[: 4 if images.shape[1] == 3 else 2])
            images = apply_masked(grayscale, images, parameters.gray, [])
        if self.strength >= 3:
            images = apply_masked(self._blur, images, parameters.blur, [sigma])
        return images
