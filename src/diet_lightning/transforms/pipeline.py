"""From a stored batch to the network's input: scaled, augmented or resized, and normalised, on its device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms.augmentation import BatchAugmentation
from diet_lightning.transforms.geometry import Fit, FitMode, Geometry
from diet_lightning.transforms.operations import apply_masked, erase_boxes
from diet_lightning.transforms.ragged import RaggedImages
from diet_lightning.utilities.seeding import derive_seed
from diet_lightning.utilities.threads import single_threaded

CACHED = 2**18  # numbers that the cache of a processor's core holds beside as many temporary ones
Augment = Callable[..., Any]  # (Tensor, Generator) → Tensor; spelt out, `diet fit --help` would list Tensor subclasses


class InputPipeline:
    """The operations on a batch on its device, for training and for evaluation.

    Args:
        sample: One stored input, for its shape and dtype.
        image_size: Side of the square images that the network sees; None keeps the sample's.
        strength: Strength of `BatchAugmentation`, 0 to 3.
        augmentation: Other arguments of `BatchAugmentation`, or a function of batch and generator that replaces it.
        mean: Mean of each channel on a scale of 0 to 1; empty for no normalisation.
        std: Standard deviation of each channel, as `mean`.
        fit: How evaluation brings images that are not square to the square, see `Fit`.

    Attributes:
        fit: Brings images to the network's size in evaluation.

    Raises:
        ConfigurationError: If an argument does not suit the sample.
    """

    def __init__(
        self,
        sample: Tensor,
        image_size: int | None,
        strength: int,
        augmentation: Mapping[str, Any] | Augment,
        mean: Sequence[float],
        std: Sequence[float],
        fit: FitMode = "crop",
    ) -> None:
        self.is_image = sample.ndim == 3
        self.input_shape = tuple(sample.shape)
        if self.is_image and image_size is not None:
            self.input_shape = (sample.shape[0], image_size, image_size)
        self.fit = Fit(self.input_shape[1:], fit)
        if mean and not len(mean) == len(std) == sample.shape[0]:
            raise ConfigurationError(
                f"Expected `mean` and `std` to have one number per channel ({sample.shape[0]}), but got {list(mean)} and "
                f"{list(std)}."
            )
        self.mean, self.std = list(mean), list(std)
        self._scale_and_shift: dict[
            tuple[torch.device, torch.dtype], tuple[Tensor, ...]
        ] = {}  # moved to the device once
        self.function: Augment | None = None
        self.augmentation: BatchAugmentation | None = None
        if callable(augmentation):
            self.function = augmentation
        else:
            self.augmentation = _augmentation_for(sample, self.input_shape, strength, augmentation)

    def normalize_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the mean and standard deviation of each channel, on a scale of 0 to 1."""
        self.mean, self.std = list(mean), list(std)
        self._scale_and_shift.clear()

    def fitted(self, inputs: Tensor | RaggedImages) -> Tensor:
        """Stored inputs as evaluation sees them, not yet normalised, ``(B, *input_shape)``."""
        if isinstance(inputs, RaggedImages):
            return self.fit.stacked(inputs)
        return self.fit.batch(inputs) if self.is_image else inputs

    def plain(self, inputs: Tensor | RaggedImages) -> Tensor:
        """Inputs for evaluation.

        Args:
            inputs: Stored inputs, ``(B, ...)``.

        Returns:
            Floats of shape ``(B, *input_shape)``.
        """
        return self._normalised(self.fitted(inputs))

    def training_geometry(self, world: int = 1, rank: int = 0) -> Geometry:
        """What becomes of images of several sizes in training, when they are read.

        Args:
            world: Number of ranks.
            rank: This rank.

        Returns:
            Random crops; `fit` if the augmentation is a function or has strength 0.
        """
        if self.augmentation is None or self.augmentation.strength == 0:
            return self.fit
        return self.augmentation.crops(self.input_shape[1:], world, rank)

    def seen(self, same_ratio: bool) -> str:
        """Which part of an image training and evaluation see, in words.

        Args:
            same_ratio: Whether all images have the aspect ratio of the network's input.
        """
        parts = {"crop": "the central part", "pad": "all of it with black borders", "squash": "all of it, squashed"}
        part = "all of it" if same_ratio else parts[self.fit.mode]
        if self.augmentation is None or self.augmentation.strength == 0:
            return f"training and evaluation see {part}"
        low, high = (f"{100 * bound:g}" for bound in self.augmentation.crop_scale)
        return f"training sees a random crop of {low} to {high} % of the area, evaluation sees {part}"

    def augmented(
        self, inputs: Tensor | RaggedImages, position: tuple[int, ...], world: int, rank: int, cropped: bool = False
    ) -> Tensor:
        """Inputs for training.

        Args:
            inputs: Stored inputs, ``(B, ...)``.
            position: (seed, epoch, step), which determines the draws.
            world: Number of ranks.
            rank: This rank.
            cropped: Whether `training_geometry` was applied when they were read.

        Returns:
            Floats of shape ``(B, *input_shape)``.

        Raises:
            ConfigurationError: If a custom function returns another type or number of inputs.
        """
        if self.function is not None:
            generator = torch.Generator(inputs.device).manual_seed(derive_seed(*position, rank))
            augmented = self.function(_unit_range(self.fitted(inputs)), generator)
            if not isinstance(augmented, Tensor) or augmented.shape[:1] != (len(inputs),):
                found = f"shape {tuple(augmented.shape)}" if isinstance(augmented, Tensor) else type(augmented).__name__
                raise ConfigurationError(
                    f"Expected argument `augmentation` to return a tensor with one input for each of the {len(inputs)} samples "
                    f"of the batch, but got {found}."
                )
            return self._normalised(augmented)
        if self.augmentation is None or self.augmentation.strength == 0:
            return self.plain(inputs)
        if isinstance(inputs, RaggedImages):
            geometry = self.training_geometry(world, rank).at(position, len(inputs))
            inputs, cropped = geometry.stacked(inputs), True
        numbers = np.random.default_rng(derive_seed(*position))
        size, out = (inputs.shape[2], inputs.shape[3]), (self.input_shape[1], self.input_shape[2])
        parameters = self.augmentation.draw(len(inputs), size, out, numbers, world, rank)
        # on a CPU by parts that its cache holds, since the operations would wait for the memory
        chunk = len(inputs) if inputs.device.type != "cpu" else max(1, CACHED // (inputs.shape[1] * out[0] * out[1]))
        dtype = inputs.dtype if inputs.is_floating_point() and inputs.dtype != torch.float64 else torch.float32
        made = torch.empty(len(inputs), *self.input_shape, dtype=dtype, device=inputs.device)
        with single_threaded() if cropped and inputs.device.type == "cpu" else nullcontext():
            for n in range(0, len(inputs), chunk):
                part, drawn = inputs[n : n + chunk], parameters.rows(n, n + chunk)
                stored = part if part.dtype == torch.uint8 else _unit_range(part)  # the crop scales bytes
                images = self._normalised(self.augmentation.apply(stored, drawn, out, cropped))
                if self.augmentation.strength >= 3:
                    images = apply_masked(
                        erase_boxes, images, drawn.erase[:, 2] > 0, [drawn.erase.to(images.device, non_blocking=True)]
                    )
                made[n : n + chunk] = images
        return made

    def _normalised(self, inputs: Tensor) -> Tensor:
        if not self.mean or inputs.dtype == torch.float64:
            inputs = _unit_range(inputs)
        if not self.mean:
            return inputs
        key = (inputs.device, inputs.dtype)
        if key not in self._scale_and_shift:
            mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
            unit = 255.0 if inputs.dtype == torch.uint8 else 1.0
            dtype = inputs.dtype if inputs.is_floating_point() else torch.float32
            self._scale_and_shift[key] = tuple(
                each.to(inputs.device, dtype) for each in (1.0 / (std * unit), -mean / std)
            )
        # channels are the second dimension, in images and signals
        scale, shift = (each.reshape(-1, *(1,) * (inputs.ndim - 2)) for each in self._scale_and_shift[key])
        scaled = inputs * scale if inputs.is_floating_point() else inputs.float().mul_(scale)
        return scaled.add_(shift)


def _augmentation_for(
    sample: Tensor, input_shape: tuple[int, ...], strength: int, settings: Mapping[str, Any]
) -> BatchAugmentation | None:
    if sample.ndim != 3:
        if strength > 0:
            raise ConfigurationError(
                f"strength={strength} augments images of shape (channels, height, width), but the inputs have shape "
                f"{input_shape}: pass a function as `augmentation`, set `strength` to 0, or give gray images an axis for the channel, "
                "a[:, None]."
            )
        return None
    names = inspect.signature(BatchAugmentation).parameters.keys() - {"strength"}
    if unknown := sorted(settings.keys() - names):
        raise ConfigurationError(f"Unknown name in `augmentation`: {unknown}; expected some of {sorted(names)}.")
    return BatchAugmentation(strength, **settings)


def _unit_range(inputs: Tensor) -> Tensor:
    if inputs.dtype == torch.uint8:
        return inputs.float().div_(255.0)
    return inputs.float() if inputs.dtype == torch.float64 else inputs
