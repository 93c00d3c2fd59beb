"""Backbones: a name or a module in, a feature extractor with `.embed_dim` out (DIET, Algorithm 3)."""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal, get_args

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from diet_lightning.errors import ConfigurationError

Stem = Literal["auto", "small", "standard"]
SMALL_IMAGE = 64  # pixels; up to here a ResNet's stride-4 stem would leave too few positions
RESNET8_WIDTH = 32
RESNET8_NAME = re.compile(r"resnet8(?:_w([1-9][0-9]{0,3}))?")
CLASSIFIER_NAMES = ("fc", "classifier", "heads", "head")


class Backbone(nn.Module):
    """A network without its classifier.

    Args:
        model: Maps an input batch to embeddings of shape ``(B, embed_dim)``.
        embed_dim: K, the dimension of the embeddings.
        stem: ``"small"`` if the first layers were adapted to small images, else ``"standard"``.
    """

    def __init__(self, model: nn.Module, embed_dim: int, stem: Stem = "standard") -> None:
        super().__init__()
        self.model = model
        self.embed_dim = embed_dim
        self.stem = stem
        self.layout = torch.contiguous_format

    def lay_out(self, channels_last: bool) -> None:
        """Puts the channels of weights and images last in memory, which tensor cores want, or in their usual place."""
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        for parameter in self.model.parameters():
            if parameter.ndim == 4:  # volumes have a layout of their own
                parameter.data = parameter.data.contiguous(memory_format=self.layout)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of a batch, shape ``(B, embed_dim)``."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=self.layout)
        features: Tensor = self.model(x)
        return features


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


def create_backbone(
    backbone: str | nn.Module,
    input_shape: tuple[int, ...] = (3, 224, 224),
    stem: Stem = "auto",
    classifier: str | None = None,
) -> Backbone:
    """Makes a feature extractor for inputs of a given shape.

    Args:
        backbone: ``"resnet8"`` (for tiny images), ``"resnet8_w64"`` (of another width than 32), the name of a torchvision classification model, ``"timm/NAME"``, or a
            module. Named models start from random weights and take their channels and image size from `input_shape`.
            The classifier of torchvision and timm models is removed; any other module is taken whole and must return
            embeddings of shape ``(B, K)``, unless `classifier` names the part to remove.
        input_shape: Shape of one input, without the batch: ``(C, H, W)`` for images.
        stem: ``"small"`` gives a ResNet the stem for 32×32 images (first convolution 3×3, stride 1, padding 2, no
            max-pool), ``"standard"`` leaves it, ``"auto"`` chooses small up to 64 pixels. Other architectures have no
            such stem and stay as they are under ``"auto"``.
        classifier: Dotted name of a submodule of `backbone` to replace by the identity.

    Returns:
        The feature extractor. Batch-norm statistics, training mode and the random state are what they were before
        its dimension was found.

    Raises:
        ConfigurationError: For an unknown name or stem, or a module that cannot give embeddings for `input_shape`.

    Example:
        >>> create_backbone("resnet18", (3, 32, 32)).embed_dim
        512
    """
    if stem not in get_args(Stem):
        raise ConfigurationError(f"Expected argument `stem` to be one of {list(get_args(Stem))}, but got {stem!r}.")
    if isinstance(backbone, Backbone):
        return backbone
    used: Stem = "standard"
    if isinstance(backbone, nn.Module):
        model, name = backbone, type(backbone).__name__
    elif isinstance(backbone, str):
        if len(input_shape) != 3:
            raise ConfigurationError(
                f"Expected inputs of shape (channels, height, width) for backbone={backbone!r}, but got "
                f"{tuple(input_shape)}: pass a module that reads such inputs as `backbone`."
            )
        model, name = _named_model(backbone, input_shape), backbone
        used = _adapt_stem(model, name, input_shape, stem)
    else:
        raise ConfigurationError(
            f"Expected argument `backbone` to be a name or a torch.nn.Module, but got {backbone!r}."
        )
    _remove_classifier(model, classifier)
    return Backbone(model, _embed_dim(model, name, input_shape), used)


def _named_model(name: str, input_shape: tuple[int, ...]) -> nn.Module:
    """A torchvision, timm or built-in model with random weights for images of `input_shape`."""
    channels, height, width = input_shape
    if resnet8 := RESNET8_NAME.fullmatch(name):
        return ResNet8(channels, int(resnet8[1] or RESNET8_WIDTH))
    if name.startswith("timm/"):
        return _timm_model(name.removeprefix("timm/"), input_shape)
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ConfigurationError(
            f"Unknown backbone {name!r}: expected 'resnet8', 'resnet8_w64' with 64 channels in its first block (1 to 9999), a "
            "torchvision classification model such as 'resnet50' (torchvision.models.list_models()), 'timm/NAME', or a torch.nn.Module."
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
    options: dict[str, Any] = {"num_classes": 0, "in_chans": input_shape[0]}
    if not timm.is_model(name):
        raise ConfigurationError(f"Unknown backbone 'timm/{name}': timm.list_models() has the names.")
    if "img_size" in inspect.signature(timm.model_entrypoint(name)).parameters or name.startswith(
        ("vit", "deit", "swin", "beit", "eva", "maxvit", "maxxvit", "coatnet")
    ):
        options["img_size"] = tuple(input_shape[1:])
    try:
        model: nn.Module = timm.create_model(name, **options)
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise ConfigurationError(
            f"Backbone 'timm/{name}' cannot be built for images of shape {tuple(input_shape)}: {error}; set "
            "`image_size` of the data to one that it accepts."
        ) from error
    return model


def _adapt_channels(model: nn.Module, channels: int) -> None:
    """Gives the first convolution `channels` input channels, freshly drawn as the layer itself draws them."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels != channels:
                _replace(model, name, _like(layer, in_channels=channels))
            return


def _like(layer: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """A new convolution with the settings of `layer` but for `changes`."""
    settings = {
        name: getattr(layer, name)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    }
    return nn.Conv2d(**{**settings, "bias": layer.bias is not None, "padding_mode": layer.padding_mode, **changes})


def _adapt_stem(model: nn.Module, name: str, input_shape: tuple[int, ...], stem: Stem) -> Stem:
    """Applies `stem` and returns the one in use."""
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


def _remove_classifier(model: Any, classifier: str | None) -> None:
    """Replaces the last layer of a known classifier, or the submodule called `classifier`, by the identity."""
    if classifier is not None:
        if classifier not in dict(model.named_modules()):
            raise ConfigurationError(
                f"Argument `classifier`={classifier!r} names no submodule of {type(model).__name__}: its parts are "
                f"{[name for name, _ in model.named_children()]}."
            )
        _replace(model, classifier, nn.Identity())
        return
    families = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if "timm" in families and hasattr(model, "reset_classifier"):
        model.reset_classifier(0)
    elif "torchvision" in families:
        if hasattr(model, "aux_logits"):  # GoogLeNet and Inception return a tuple while training
            model.aux_logits = False
        for part in CLASSIFIER_NAMES:
            layers = [
                (f"{part}.{name}".rstrip("."), layer)
                for name, layer in getattr(model, part, nn.Identity()).named_modules()
                if isinstance(layer, nn.Linear | nn.Conv2d)
            ]
            if layers:
                _replace(model, layers[-1][0], nn.Identity())
                return


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _embed_dim(model: nn.Module, name: str, input_shape: tuple[int, ...]) -> int:
    """Runs two zeros through the model and reads the dimension; the model and the random state stay untouched."""
    training = {module: module.training for module in model.modules()}
    tensor = next(model.parameters(), torch.empty(0))
    zeros = torch.zeros(2, *input_shape, device=tensor.device, dtype=tensor.dtype)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = model.eval()(zeros)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise ConfigurationError(
            f"Backbone {name!r} cannot read inputs of shape {tuple(input_shape)}: {error}; change the input "
            "(for images `image_size`) or the backbone."
        ) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigurationError(
            f"Expected backbone {name!r} to return embeddings of shape (batch, dimension), but got {shape} for a batch "
            f"of 2: add pooling and flattening, or name its classifier with create_backbone(..., classifier=...)."
        )
    return int(output.shape[1])
