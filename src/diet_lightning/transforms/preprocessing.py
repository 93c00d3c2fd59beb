"""Preprocessing of images for a trained network, outside of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import PixelFormat, to_unit
from diet_lightning.transforms.geometry import FitMode
from diet_lightning.transforms.pipeline import InputPipeline


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of `DIETDataModule` in evaluation: resize, scale to 0 … 1, normalise.

    Attributes:
        input_shape: Shape of one input of the network, ``(C, H, W)`` for images.
        mean: Mean of each channel on a scale of 0 to 1; empty for no normalisation.
        std: Standard deviation of each channel, as `mean`.
        background: Color behind transparent pixels.
        value_range: The values that become 0 and 1 in images of more than 8 bits and in tensors of integers other than
            uint8; None for the range of 16 bits.
        fit: How images that are not square are brought to the square, see `Fit`.

    Example:
        >>> preprocess = Preprocessing((3, 32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        >>> preprocess(Image.new("RGB", (640, 480))).shape
        torch.Size([1, 3, 32, 32])
    """

    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: str = "white"
    value_range: tuple[float, float] | None = None
    fit: FitMode = "crop"

    @cached_property
    def _pipeline(self) -> InputPipeline:
        return InputPipeline(
            torch.empty(self.input_shape, dtype=torch.uint8), None, 0, {}, self.mean, self.std, self.fit
        )

    def __call__(self, inputs: Image.Image | Sequence[Image.Image] | Tensor) -> Tensor:
        """Makes a batch of the network's inputs.

        Args:
            inputs: One or several PIL images of any size and mode, which are resized and of which the centre is cropped, unless
                `fit` is another; or a stored batch of `DIETDataModule`, ``(B, ...)``: uint8, floating point, or other integers.

        Returns:
            Floats of shape ``(B, *input_shape)``, on the device of `inputs`.

        Raises:
            DataError: If the shape of the inputs does not fit the network.
        """
        if isinstance(inputs, Image.Image):
            inputs = [inputs]
        if not isinstance(inputs, Tensor):
            inputs = torch.stack([self._to_fitted(image) for image in inputs])
        fits = inputs.shape[2:] == self.input_shape[1:] or (inputs.ndim == 4 and self._pipeline.is_image)
        if not fits or inputs.shape[1] != self.input_shape[0]:
            raise DataError(
                f"Expected a batch of inputs of shape {self.input_shape}, or of images with {self.input_shape[0]} channels, "
                f"but got a tensor of shape {tuple(inputs.shape)}."
            )
        if self.value_range is not None and not (inputs.is_floating_point() or inputs.dtype == torch.uint8):
            inputs = to_unit(inputs, self.value_range)
        return self._pipeline.plain(inputs)

    def _to_fitted(self, image: Image.Image) -> Tensor:
        channels = self.input_shape[0]
        if not self._pipeline.is_image or channels not in (1, 3):
            raise DataError(
                f"Expected tensors for a network that reads inputs of shape {self.input_shape}, but got an image."
            )
        try:
            tensor = PixelFormat("gray" if channels == 1 else "rgb", self.background, self.value_range)(image)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"The image cannot be read: {error}.") from error
        return self._pipeline.fit.apply(0, tensor, tensor.shape[1:])
