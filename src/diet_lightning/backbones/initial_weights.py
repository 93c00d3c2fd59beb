"""Initial weights of a backbone, from its library, a file, an exported folder or another run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from diet_lightning.backbones.architectures import RESNET8_NAME, timm_model
from diet_lightning.backbones.exported import (
    CONFIG,
    PICKLES,
    first_difference,
    read_safetensors,
    read_weights,
    sum_channels,
)
from diet_lightning.backbones.factory import CLASSIFIER_NAMES, Backbone
from diet_lightning.errors import CheckpointError, ConfigurationError, first_line
from diet_lightning.runs.checkpoint import read_checkpoint
from diet_lightning.runs.folder import find_checkpoint

PRETRAINED = "pretrained"
PREFIX = "backbone.model."  # name of the network within `DIETModule`
CLASSIFIERS = {*CLASSIFIER_NAMES, "head_dist", "aux1", "aux2", "AuxLogits"}  # parts that create_backbone removes
DENSENET_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # in torchvision's files: norm.1 for norm1


def load_initial_weights(backbone: Backbone, weights: str) -> None:
    """Loads the initial weights of a network; code in files is never run.

    Args:
        backbone: The network, which keeps its dtype.
        weights: ``"pretrained"``: torchvision's or timm's own, from their cache or downloaded by them; timm fits them to
            other channels and image sizes. A ``.safetensors`` file of the network's state dict, under its library's names.
            A folder of `diet export`. Or a run of `diet fit`, by its folder or a checkpoint: its backbone is loaded.
            Weights of a classifier are ignored; those of a first convolution for RGB images are summed over the channels
            for gray ones.

    Raises:
        CheckpointError: If the weights cannot be read, or do not fit the network.
        ConfigurationError: If the network has no pretrained weights, or is an exported network, which has its own weights.
    """
    model = backbone.model
    found = {**_read(backbone, weights)}
    here = model.state_dict()
    for name in found.keys() - here.keys():
        if name.partition(".")[0] in CLASSIFIERS:
            del found[name]
    for name in here.keys() - found.keys():
        if name.endswith("num_batches_tracked"):  # missing in old files, and without effect
            found[name] = here[name]
    found = sum_channels(found, here)
    if (difference := first_difference(found, here)) is not None:
        raise CheckpointError(
            f"The weights of '{weights}' do not fit the network: {difference}; use the `backbone`, `stem` and `image_size` "
            "that they were trained with."
        )
    model.load_state_dict(found)


def _read(backbone: Backbone, weights: str) -> Mapping[str, Tensor]:
    path = Path(weights)
    if weights == PRETRAINED:
        return _library_weights(backbone)
    if (path / CONFIG).is_file():
        return read_weights(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in PICKLES - {".ckpt"}:
        raise CheckpointError(
            f"File '{weights}' is a pickle, which could run code when loaded: it is refused as `weights`; save its state dict "
            "with safetensors.torch.save_file."
        )
    if not path.exists():
        raise CheckpointError(
            f"Argument `weights` names nothing: '{weights}' does not exist; give 'pretrained', a .safetensors file, a folder of "
            "`diet export`, or a run's folder or checkpoint."
        )
    file = find_checkpoint(path)
    saved = read_checkpoint(file)["state_dict"]
    found = {name.removeprefix(PREFIX): value for name, value in saved.items() if name.startswith(PREFIX)}
    if not found:
        raise CheckpointError(f"Checkpoint '{file}' holds no backbone: it was not written by DIETModule.")
    return found


def _library_weights(backbone: Backbone) -> Mapping[str, Tensor]:
    name = backbone.name
    if name is None or backbone.input_shape is None or RESNET8_NAME.fullmatch(name):
        raise ConfigurationError(
            f"Backbone {name or 'custom'!r} has no pretrained weights: give a file, an exported folder or a run as "
            "`weights`."
        )
    try:
        if name.startswith("timm/"):
            with torch.random.fork_rng(devices=[]):
                return timm_model(name, backbone.input_shape, pretrained=True).state_dict()
        default = torchvision.models.get_model_weights(name).DEFAULT
        weights = default.get_state_dict(progress=True, check_hash=True, weights_only=True)
        return {DENSENET_NAME.sub(r"\1\2", key): value for key, value in weights.items()}
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"The pretrained weights of backbone {name!r} cannot be read ({first_line(error)}): they are fetched "
            "once over the network and then kept; or give a .safetensors file as `weights`."
        ) from error
