"""The network of a run: its sizes and its initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from diet_lightning.backbones.factory import Backbone, create_backbone
from diet_lightning.backbones.initial_weights import load_initial_weights
from diet_lightning.errors import ConfigurationError


def find_sizes(
    hparams: Mapping[Any, Any], argument: str, noun: str, data: Any, fitting: bool
) -> tuple[int | None, tuple[int, ...] | None]:
    """The number of classes and the shape of the inputs, from the hyper-parameters or else the data module.

    Args:
        hparams: The module's hyper-parameters.
        argument: Name of the number of classes, as a hyper-parameter and as an attribute of the data module.
        noun: The classes in messages.
        data: The data module, or None.
        fitting: Whether training starts; then the hyper-parameter and the data must agree.

    Returns:
        Number of classes and shape; None for a value that neither source has.

    Raises:
        ConfigurationError: If the data have another number of classes than the hyper-parameters.
    """
    found, count = getattr(data, argument, None), hparams[argument]
    if fitting and count is not None and found not in (None, count):
        raise ConfigurationError(
            f"{argument}={count}, but the data module has {found} {noun}: leave `{argument}` out to read it from the data."
        )
    return found if count is None else count, hparams["input_shape"] or getattr(data, "input_shape", None)


def make_backbone(given: str | nn.Module, hparams: Any) -> Backbone:
    """Makes the backbone with its initial weights.

    Args:
        given: As `backbone` of `DIETModule`.
        hparams: The module's hyper-parameters. They are changed such that a checkpoint of the run needs neither the folder
            nor the file of the initial weights.

    Returns:
        The backbone.

    Raises:
        ConfigurationError: As `create_backbone`, or if `weights` is given for an exported folder.
    """
    backbone = create_backbone(given, tuple(hparams.input_shape), hparams.stem)
    is_exported = isinstance(given, str) and given != backbone.name
    if hparams.weights is not None and is_exported:
        raise ConfigurationError(
            f"Expected argument `weights` to be None with backbone={given!r}, an exported folder with weights of its own, but "
            f"got {hparams.weights!r}: name the architecture, {backbone.name!r}, as `backbone`."
        )
    if hparams.weights is not None:
        load_initial_weights(backbone, hparams.weights)
    hparams.weights = None
    if is_exported:
        hparams.backbone, hparams.stem = backbone.name, backbone.stem
    backbone.lay_out(hparams.channels_last)
    return backbone
