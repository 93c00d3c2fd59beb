"""Mean and standard deviation of a data set's channels."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.survey import evenly_spaced

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CHUNK = 1024  # images per step of the computation
STATISTICS_IMAGES = 2**16  # number of evenly spaced images that the statistics are computed on


def channel_statistics(train: SampleDataset, sample: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel on a scale of 0 to 1.

    Args:
        train: The training data.
        sample: One of its inputs.

    Returns:
        Computed over images in memory, at most 65,536 of them, evenly spaced; ImageNet's for images decoded on the fly, of
        gray ones their averages, 0.5 for other channels; empty for inputs other than images.
    """
    if sample.ndim != 3:
        return [], []
    channels = sample.shape[0]
    if (arrays := train.arrays) is None:
        if channels == 1:
            return [sum(IMAGENET_MEAN) / 3], [sum(IMAGENET_STD) / 3]
        return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ([0.5] * channels, [0.5] * channels)
    every = torch.tensor(evenly_spaced(len(train), STATISTICS_IMAGES))
    if sample.dtype != torch.uint8:
        return _of_floats(arrays.inputs, every)
    counts = torch.zeros(channels, 256, dtype=torch.int64)  # counts of each byte value, so that the sums are exact
    for rows in torch.split(every, CHUNK):
        pixels = arrays.inputs[rows]
        for channel in range(channels):
            parts = (
                [pixels[:, channel]] if isinstance(pixels, Tensor) else [image[channel].flatten() for image in pixels]
            )
            counts[channel] += torch.bincount(torch.cat(parts).flatten(), minlength=256)
    share = counts.double() / counts.sum(dim=1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255.0
    mean = share @ levels
    std = (share @ levels.square() - mean.square()).clamp(min=1e-4).sqrt()
    return mean.tolist(), std.tolist()


def _of_floats(images: Tensor, every: Tensor) -> tuple[list[float], list[float]]:
    mean, square = torch.zeros(2, images.shape[1], dtype=torch.float64)
    for rows in torch.split(every, CHUNK):
        values = images[rows].double().movedim(1, 0).flatten(1)  # (C, pixels)
        mean += values.sum(1) / images[0, 0].numel() / len(every)
        square += values.square().sum(1) / images[0, 0].numel() / len(every)
    return mean.tolist(), (square - mean.square()).clamp(min=1e-4**2).sqrt().tolist()
