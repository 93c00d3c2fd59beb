"""Augmentation on a GPU: the images are the CPU's, and the CPU does not wait for them."""

from __future__ import annotations

import pytest
import torch
from helpers import ON_GPU, images

from diet_lightning.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from diet_lightning.transforms.pipeline import InputPipeline

pytestmark = ON_GPU


# from 49 pixels on a CPU crops bytes, and rounds to half a byte along each axis
@pytest.mark.parametrize(
    ("side", "strength", "bound"), [(32, 1, 2e-5), (32, 2, 2e-5), (32, 3, 2e-5), (64, 1, 1.1 / 255)]
)
def test_a_batch_of_bytes_is_augmented_as_on_the_cpu_without_a_wait(side, strength, bound):
    batch = images(64, side=side)
    pipeline = InputPipeline(batch[0], None, strength, {}, IMAGENET_MEAN, IMAGENET_STD)
    there = batch.cuda()
    pipeline.augmented(there, (0, 0, 0), 1, 0)  # keeps the mean on the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = pipeline.augmented(there, (0, 0, 1), 1, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = pipeline.augmented(batch, (0, 0, 1), 1, 0)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=bound / min(IMAGENET_STD))
