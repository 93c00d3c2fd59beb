"""Backbones: a name or a module in, a feature extractor with `.embed_dim` out (DIET, Algorithm 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from diet_lightning.backbones.architectures import Stem, adapt_stem, is_architecture, named_model
from diet_lightning.backbones.exported import load_weights, read_config
from diet_lightning.backbones.pointwise import unstride_pointwise
from diet_lightning.errors import CheckpointError, ConfigurationError, require

DEFAULT_SHAPE = (3, 224, 224)
CLASSIFIER_NAMES = ("fc", "classifier", "heads", "head")


class Backbone(nn.Module):
    """A network without its classifier.

    Args:
        model: Maps an input batch to embeddings of shape ``(B, embed_dim)``. Its strided 1×1 convolutions of few channels
            are computed with a stride of 1, see `unstride_pointwise`.
        embed_dim: K, the dimension of the embeddings.
        stem: ``"small"`` if the first layers were adapted to small images, else ``"standard"``.
        name: Name of the architecture, as for `create_backbone`; None for a custom module.
        input_shape: Shape of the inputs that the network was built for; None if unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        embed_dim: int,
        stem: Stem = "standard",
        name: str | None = None,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        unstride_pointwise(model)
        self.model = model
        self.embed_dim = embed_dim
        self.stem = stem
        self.name = name
        self.input_shape = input_shape
        self.layout = torch.contiguous_format

    def lay_out(self, channels_last: bool) -> None:
        """Switches weights and images to the channels-last memory format, which suits tensor cores, or to the default one."""
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        for parameter in self.model.parameters():
            if parameter.ndim == 4:  # the memory format of volumes is another one
                parameter.data = parameter.data.contiguous(memory_format=self.layout)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of a batch, shape ``(B, embed_dim)``."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=self.layout)
        features: Tensor = self.model(x)
        return features


def create_backbone(
    backbone: str | nn.Module,
    input_shape: tuple[int, ...] | None = None,
    stem: Stem = "auto",
    classifier: str | None = None,
) -> Backbone:
    """Makes a feature extractor for inputs of a given shape.

    Args:
        backbone: ``"resnet8"`` (for tiny images), ``"resnet8_w64"`` (of another width than 32), the name of a torchvision
            classification model, ``"timm/NAME"``, a folder that `diet export` wrote (``"./NAME"`` where it has the name of a
            model), or a module. Named models start from random weights and take their channels and image size from
            `input_shape`, exported ones start from their own weights. The classifier of torchvision and timm models is
            removed; any other module is used unchanged and must return embeddings of shape ``(B, K)``, unless `classifier`
            names the part to remove.
        input_shape: Shape of one input, without the batch: ``(C, H, W)`` for images. None for ``(3, 224, 224)``, or for the
            shape of the exported network.
        stem: ``"small"`` gives a ResNet the stem for 32×32 images (first convolution 3×3, stride 1, padding 2, no
            max-pool), ``"standard"`` keeps its own, ``"auto"`` chooses the small one for images of up to 64 pixels.
            ``"auto"`` does not change other architectures.
        classifier: Dotted name of a submodule of `backbone` to replace by the identity.

    Returns:
        The feature extractor. Finding its dimension changes neither batch-norm statistics nor training mode nor the random
        state.

    Raises:
        ConfigurationError: For an unknown name or stem, or a module that cannot give embeddings for `input_shape`.
        CheckpointError: If an exported folder cannot be read.

    Example:
        >>> create_backbone("resnet18", (3, 32, 32)).embed_dim
        512
    """
    require(stem in get_args(Stem), "stem", f"one of {list(get_args(Stem))}", stem)
    if isinstance(backbone, Backbone):
        return backbone
    shape = DEFAULT_SHAPE if input_shape is None else tuple(input_shape)
    if isinstance(backbone, str):
        if not is_architecture(backbone) and Path(backbone).is_dir():
            return load_exported(backbone, input_shape, stem, classifier)
        if len(shape) != 3:
            raise ConfigurationError(
                f"Expected inputs of shape (channels, height, width) for backbone={backbone!r}, but got "
                f"{shape}: pass a module that reads such inputs as `backbone`."
            )
        model = named_model(backbone, shape)
        stem = adapt_stem(model, backbone, shape, stem)
        _remove_classifier(model, classifier)
        name = backbone if classifier is None else None
        return Backbone(model, find_embed_dim(model, backbone, shape), stem, name, shape)
    require(isinstance(backbone, nn.Module), "backbone", "a name or a torch.nn.Module", backbone)
    _remove_classifier(backbone, classifier)
    return Backbone(backbone, find_embed_dim(backbone, type(backbone).__name__, shape), input_shape=shape)


def load_exported(
    folder: str | Path,
    input_shape: tuple[int, ...] | None = None,
    stem: Stem = "auto",
    classifier: str | None = None,
) -> Backbone:
    """Rebuilds an exported network with its weights.

    Args:
        folder: A folder that `diet export` wrote.
        input_shape: As for `create_backbone`; None for the shape of the exported network.
        stem: The stem of the exported network, or ``"auto"``.
        classifier: As for `create_backbone`.

    Raises:
        CheckpointError: If the folder cannot be read, or holds the weights of a custom module.
        ConfigurationError: If the network has another stem, or cannot read `input_shape`.
    """
    config = read_config(folder)
    if config.backbone is None:
        raise CheckpointError(
            f"Folder '{folder}' holds the weights of a custom module: pass the untrained module as "
            "load_backbone(folder, backbone=...)."
        )
    if not is_architecture(config.backbone):
        raise CheckpointError(
            f"Folder '{folder}' names an unknown backbone, {config.backbone!r}: export the run again."
        )
    if stem not in ("auto", config.stem):
        raise ConfigurationError(
            f"Expected argument `stem` to be 'auto' or {config.stem!r}, with which '{folder}' was trained, but got {stem!r}."
        )
    shape = config.input_shape
    if input_shape is not None and len(shape) == 3:
        shape = (1 if input_shape[0] == 1 else shape[0], *shape[1:])  # the weights of RGB images suit gray ones
    backbone = create_backbone(config.backbone, shape, config.stem)  # type: ignore[arg-type]
    load_weights(backbone.model, folder)
    backbone.lay_out(config.channels_last)
    if classifier is not None:
        _remove_classifier(backbone.model, classifier)
        backbone.name = None
    backbone.input_shape = config.input_shape if input_shape is None else tuple(input_shape)
    backbone.embed_dim = find_embed_dim(backbone.model, str(folder), backbone.input_shape)
    return backbone


def _remove_classifier(model: Any, classifier: str | None) -> None:
    """Replaces the last layer of a known classifier, or the submodule called `classifier`, by the identity."""
    families = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if classifier is not None:
        if classifier not in dict(model.named_modules()):
            raise ConfigurationError(
                f"Argument `classifier`={classifier!r} names no submodule of {type(model).__name__}: its parts are "
                f"{[name for name, _ in model.named_children()]}."
            )
        model.set_submodule(classifier, nn.Identity())
    elif "timm" in families and hasattr(model, "reset_classifier"):
        model.reset_classifier(0)
    elif "torchvision" in families:
        if hasattr(model, "aux_logits"):  # GoogLeNet and Inception return a tuple while training
            model.aux_logits = False
        layers = [
            name
            for name, layer in model.named_modules()
            if name.partition(".")[0] in CLASSIFIER_NAMES and isinstance(layer, nn.Linear | nn.Conv2d)
        ]
        if layers:
            model.set_submodule(layers[-1], nn.Identity())


def find_embed_dim(model: nn.Module, name: str, input_shape: tuple[int, ...]) -> int:
    """The dimension K of a network's embeddings, found by a batch of two zeros; its state and the random state do not change.

    Raises:
        ConfigurationError: If the network cannot read such inputs, or returns another shape.
    """
    training = {module: module.training for module in model.modules()}
    tensor = next(model.parameters(), torch.empty(0))
    zeros = torch.zeros(2, *input_shape, device=tensor.device, dtype=tensor.dtype)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = model.eval()(zeros)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise ConfigurationError(
            f"Backbone {name!r} cannot read inputs of shape {tuple(input_shape)}: {error}; change the input "
            "(for images `image_size` or `read.color`) or the backbone."
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
