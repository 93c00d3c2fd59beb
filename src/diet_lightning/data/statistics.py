"""Mean and standard deviation of a data set's channels."""

from __future__ import annotations

import torch
from torch import Tensor

from diet_lightning.data.dataset import SampleDataset

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CHUNK = 1024  # images per step of the computation
STATISTICS_IMAGES = 2**16  # number of evenly spaced images that the statistics are computed on


def channel_statistics(train: SampleDataset, sample: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel on a scale of 0 to 1.

    Args:
        train: The training data.
        sample: One of its inputs.

    Returns:
        Computed over uint8 images in memory, at most 65,536 of them, evenly spaced; ImageNet's for RGB images decoded
        on the fly, 0.5 for other channels; empty for inputs other than uint8 images.
    """
    if sample.dtype != torch.uint8 or sample.ndim != 3:
        return [], []
    channels = sample.shape[0]
    if (arrays := train.arrays) is None:
        return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ([0.5] * channels, [0.5] * channels)
    every = torch.linspace(0, len(train) - 1, min(len(train), STATISTICS_IMAGES), dtype=torch.float64).long()
    counts = torch.zeros(channels, 256, dtype=torch.int64)  # counts of each byte value, so that the sums are exact
    for rows in torch.split(every, CHUNK):
        pixels = arrays.inputs[rows]
        for channel in range(channels):
            counts[channel] += torch.bincount(pixels[:, channel].flatten(), minlength=256)
    share = counts.double() / counts.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255.0
    mean = share @ values
    std = (share @ values.square() - mean.square()).clamp(min=1e-4).sqrt()
    return mean.tolist(), std.tolist()
