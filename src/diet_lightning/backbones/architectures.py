"""Named networks with random weights: built in, torchvision's and timm's."""

from __future__ import annotations

import re
from typing import Any, Literal

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from diet_lightning.errors import ConfigurationError

Stem = Literal["auto", "small", "standard"]
SMALL_IMAGE = 64  # pixels; on images up to this size the stride-4 stem of a ResNet leaves too few positions
RESNET8_WIDTH = 32
RESNET8_NAME = re.compile(r"resnet8(?:_w([1-9][0-9]{0,3}))?")
TORCHVISION_NAMES = frozenset(torchvision.models.list_models(module=torchvision.models))


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
    return RESNET8_NAME.fullmatch(name) is not None or name.startswith("timm/") or name in TORCHVISION_NAMES


def named_model(name: str, input_shape: tuple[int, ...]) -> nn.Module:
    """A torchvision, timm or built-in model with random weights for images ``(C, H, W)``; torchvision's keep their classifier.

    Raises:
        ConfigurationError: For an unknown name, or a model that cannot be built for this shape.
    """
    channels, height, width = input_shape
    if resnet8 := RESNET8_NAME.fullmatch(name):
        return ResNet8(channels, int(resnet8[1] or RESNET8_WIDTH))
    is_timm = name.startswith("timm/")
    if is_timm:
        _check_timm(name)
    elif name not in TORCHVISION_NAMES:
        raise ConfigurationError(
            f"Unknown backbone {name!r}: expected 'resnet8', 'resnet8_w64' with 64 channels in its first block (1 to 9999), a "
            "torchvision classification model such as 'resnet50' (torchvision.models.list_models()), 'timm/NAME', a folder of "
            "`diet export`, or a torch.nn.Module."
        )
    try:
        return timm_model(name, input_shape) if is_timm else _torchvision_model(name, input_shape)
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise ConfigurationError(
            f"Backbone {name!r} cannot be built for images of {height}×{width} with {channels} channels: {error}; set "
            "`image_size` of the data to one that it accepts (224 suits most)."
        ) from error


def _torchvision_model(name: str, input_shape: tuple[int, ...]) -> nn.Module:
    channels, height, width = input_shape
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = height
    elif name.startswith("maxvit"):
        options["input_size"] = (height, width)
    elif name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    place = next(place for place, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    conv: Any = model.get_submodule(place)
    if conv.in_channels != channels:
        settings = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias is not None)
        model.set_submodule(place, nn.Conv2d(channels, conv.out_channels, *settings))
    return model


def _check_timm(name: str) -> None:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"Backbone {name!r} needs the timm package: pip install 'diet-lightning[timm]'."
        ) from error
    if not timm.is_model(name.removeprefix("timm/")):
        raise ConfigurationError(f"Unknown backbone {name!r}: timm.list_models() has the names.")


def timm_model(name: str, input_shape: tuple[int, ...], pretrained: bool = False) -> nn.Module:
    """The model called ``timm/NAME``, without a classifier; timm fits pretrained weights to channels and image size."""
    import timm

    arguments = timm_arguments(name, input_shape)
    model: nn.Module = timm.create_model(name.removeprefix("timm/"), pretrained, num_classes=0, **arguments)
    return model


def timm_arguments(name: str, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Keyword arguments with which timm builds the model called ``timm/NAME`` for images of `input_shape`."""
    options: dict[str, Any] = {"in_chans": input_shape[0]}
    families = ("vit", "deit", "swin", "beit", "eva", "maxvit", "maxxvit", "coatnet")
    if name.removeprefix("timm/").startswith(families):
        options["img_size"] = tuple(input_shape[1:])
    return options


def adapt_stem(model: nn.Module, name: str, input_shape: tuple[int, ...], stem: Stem) -> Stem:
    """Gives a ResNet the stem for small images, if requested by `stem`, and returns the stem in use.

    Raises:
        ConfigurationError: If the small stem is requested for another architecture.
    """
    parts = dict(model.named_children())
    first: Any = parts.get("conv1")
    is_resnet = "maxpool" in parts and isinstance(first, nn.Conv2d)
    if stem == "small" and not is_resnet:
        raise ConfigurationError(
            f"stem='small' is defined for ResNets, but got backbone={name!r}: use stem='auto' or 'standard'."
        )
    if stem == "standard" or not is_resnet or (stem == "auto" and max(input_shape[1:]) > SMALL_IMAGE):
        return "standard"
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=2, bias=False)
    model.maxpool = nn.Identity()
    return "small"
