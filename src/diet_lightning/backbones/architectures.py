"""Named networks with random weights: built in, torchvision's and timm's."""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from diet_lightning.errors import ConfigurationError

Stem = Literal["auto", "small", "standard"]
SMALL_IMAGE = 64  # pixels; on images up to this size the stride-4 stem of a ResNet leaves too few positions
RESNET8_WIDTH = 32
RESNET8_NAME = re.compile(r"resnet8(?:_w([1-9][0-9]{0,3}))?")


class ResNet8(nn.Sequential):
    """Residual network for images of 8 to 32 pixels: three basic blocks, each of twice the channels of the one before.

    He et al. (2016), section 4.2 with n = 1, twice as wide: 0.3 M parameters.

    Args:
        in_channels: Channels of the images.
        width: Channels of the first block; the embeddings have four times as many dimensions.
    """

    def __init__(self, in_channels: int = 3, width: int = RESNET8_WIDTH) -> None:
        def block(inputs: int, outputs: int, stride: int) -> BasicBlock:
            shortcut = None
            if stride > 1:
                shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            return BasicBlock(inputs, outputs, stride, shortcut)

        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            block(width, width, 1),
            block(width, 2 * width, 2),
            block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


def is_architecture(name: str) -> bool:
    """Whether a name is the name of a network and not of an exported folder."""
    return RESNET8_NAME.fullmatch(name) is not None or name.startswith("timm/") or name in _torchvision_names()


def _torchvision_names() -> list[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def named_model(name: str, input_shape: tuple[int, ...]) -> nn.Module:
    """A torchvision, timm or built-in model with random weights.

    Args:
        name: As for `create_backbone`.
        input_shape: Shape of an image, ``(C, H, W)``.

    Returns:
        The model; torchvision's models keep their classifier.

    Raises:
        ConfigurationError: For an unknown name, or a model that cannot be built for this shape.
    """
    channels, height, width = input_shape
    if resnet8 := RESNET8_NAME.fullmatch(name):
        return ResNet8(channels, int(resnet8[1] or RESNET8_WIDTH))
    if name.startswith("timm/"):
        return _timm_model(name.removeprefix("timm/"), input_shape)
    if name not in _torchvision_names():
        raise ConfigurationError(
            f"Unknown backbone {name!r}: expected 'resnet8', 'resnet8_w64' with 64 channels in its first block (1 to 9999), a "
            "torchvision classification model such as 'resnet50' (torchvision.models.list_models()), 'timm/NAME', a folder of "
            "`diet export`, or a torch.nn.Module."
        )
    builder = torchvision.models.get_model_builder(name)
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = height
    elif name.startswith("maxvit"):
        options["input_size"] = (height, width)
    elif name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    try:
        model: nn.Module = builder(weights=None, **options)
    except (ValueError, RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"Backbone {name!r} cannot be built for images of {height}×{width}: {error}; set `image_size` of the data "
            "to one that it accepts (224 suits most)."
        ) from error
    _adapt_channels(model, channels)
    return model


def _timm_model(name: str, input_shape: tuple[int, ...]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"Backbone 'timm/{name}' needs the timm package: pip install 'diet-lightning[timm]'."
        ) from error
    if not timm.is_model(name):
        raise ConfigurationError(f"Unknown backbone 'timm/{name}': timm.list_models() has the names.")
    try:
        model: nn.Module = timm.create_model(name, num_classes=0, **timm_arguments(name, input_shape))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise ConfigurationError(
            f"Backbone 'timm/{name}' cannot be built for images of shape {tuple(input_shape)}: {error}; set "
            "`image_size` of the data to one that it accepts."
        ) from error
    return model


def timm_arguments(name: str, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Keyword arguments with which timm builds a model for images of `input_shape`."""
    import timm

    options: dict[str, Any] = {"in_chans": input_shape[0]}
    if "img_size" in inspect.signature(timm.model_entrypoint(name)).parameters or name.startswith(
        ("vit", "deit", "swin", "beit", "eva", "maxvit", "maxxvit", "coatnet")
    ):
        options["img_size"] = tuple(input_shape[1:])
    return options


def _adapt_channels(model: nn.Module, channels: int) -> None:
    """Replaces the first convolution by one with `channels` input channels and the default initialisation."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels != channels:
                replace_part(model, name, _like(layer, in_channels=channels))
            return


def _like(layer: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """A new convolution with the settings of `layer`, except for `changes`."""
    settings = {
        name: getattr(layer, name)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    }
    return nn.Conv2d(**{**settings, "bias": layer.bias is not None, "padding_mode": layer.padding_mode, **changes})


def adapt_stem(model: nn.Module, name: str, input_shape: tuple[int, ...], stem: Stem) -> Stem:
    """Gives a ResNet the stem for small images, if requested.

    Args:
        model: The model, which is changed.
        name: Its name.
        input_shape: Shape of an image, ``(C, H, W)``.
        stem: As for `create_backbone`.

    Returns:
        The stem in use.

    Raises:
        ConfigurationError: If the small stem is requested for another architecture.
    """
    is_resnet = isinstance(model, ResNet) or (
        name.startswith("timm/") and isinstance(getattr(model, "conv1", None), nn.Conv2d) and hasattr(model, "maxpool")
    )
    if stem == "small" and not is_resnet:
        raise ConfigurationError(
            f"stem='small' is defined for ResNets, but got backbone={name!r}: use stem='auto' or 'standard'."
        )
    if stem == "standard" or not is_resnet or (stem == "auto" and max(input_shape[1:]) > SMALL_IMAGE):
        return "standard"
    first: Any = model.conv1
    model.conv1 = _like(first, kernel_size=3, stride=1, padding=2, bias=False)
    model.maxpool = nn.Identity()
    return "small"


def replace_part(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replaces the submodule with this dotted name by a layer."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
