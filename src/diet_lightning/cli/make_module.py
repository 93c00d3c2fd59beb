"""The module of the command line: DIET, or its supervised baseline."""

from __future__ import annotations

from typing import Any

from diet_lightning.training.module import DIETModule
from diet_lightning.training.supervised import SupervisedModule


def make_module(
    backbone: str = "resnet18", supervised: bool = False, num_classes: int | None = None, **settings: Any
) -> DIETModule:
    """Self-supervised learning with the datum index as target (DIET).

    A command line names its backbone; with modules allowed, the help would list every `torch.nn.Module`.

    Args:
        backbone: "resnet8" (tiny images), "resnet8_w64" (of another width), the name of a torchvision classification
            model, "timm/NAME", or a folder of `diet export`.
        supervised: Train on the labels instead, a baseline of the same network, data and budget; see `SupervisedModule`.
        num_classes: Number of classes of a supervised run; None reads it from the data.
        **settings: As for `DIETModule`.

    Returns:
        The module.
    """
    if supervised:
        return SupervisedModule(backbone, num_classes, **settings)
    return DIETModule(backbone, **settings)
