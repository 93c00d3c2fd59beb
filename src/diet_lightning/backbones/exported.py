"""An exported folder: its config and its weights, read without running code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from PIL import ImageColor
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diet_lightning.errors import CheckpointError
from diet_lightning.transforms.geometry import FitMode
from diet_lightning.utilities.files import read_json

LIBRARY = "diet-lightning"
FORMAT_VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PIXELS = ("background", "value_range", "fit")
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


@dataclass(frozen=True)
class ExportConfig:
    """Contents of the ``config.json`` of an exported network.

    Attributes:
        format: ``"safetensors"``, ``"timm"`` or ``"onnx"``.
        backbone: Name of the architecture, as for `create_backbone`; None for a custom module.
        stem: ``"small"`` or ``"standard"``.
        channels_last: Whether images and convolutions have the channels-last memory format.
        input_shape: Shape of one input, ``(C, H, W)`` for images.
        embed_dim: K, the dimension of the embeddings.
        normalization: Mean and standard deviation of each channel on a scale of 0 to 1; empty if the inputs are only scaled;
            None if the preprocessing is unknown.
        background: Color behind transparent pixels.
        value_range: The values that become 0 and 1 in images of more than 8 bits; None if all had 8 bits.
        fit: How images that are not square are brought to the square: ``"crop"``, ``"pad"`` or ``"squash"``.
    """

    format: str
    backbone: str | None
    stem: str
    channels_last: bool
    input_shape: tuple[int, ...]
    embed_dim: int
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None
    background: str = "white"
    value_range: tuple[float, float] | None = None
    fit: FitMode = "crop"

    def to_json(self) -> dict[str, Any]:
        """The values in the form of the file, without the version of the package."""
        values = asdict(self)
        normalization = values.pop("normalization")
        preprocessing = {"scale": (0, 1), **{name: values.pop(name) for name in PIXELS}}
        if normalization is not None:
            preprocessing |= dict(zip(("mean", "std"), normalization, strict=True))
        values["preprocessing"] = None if normalization is None else preprocessing
        return {"library": LIBRARY, "format_version": FORMAT_VERSION, **values}


def read_config(folder: str | Path) -> ExportConfig:
    """Reads the ``config.json`` of an exported folder.

    Raises:
        CheckpointError: If the file is missing or damaged, or was written by another library or in another format version.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise CheckpointError(f"Folder '{folder}' holds no {CONFIG}: give a folder that `diet export` wrote.")
    try:
        values = read_json(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"File '{file}' cannot be read ({error}): export the run again.") from error
    if not isinstance(values, dict) or values.get("library") != LIBRARY:
        raise CheckpointError(f"File '{file}' was not written by {LIBRARY}: give a folder that `diet export` wrote.")
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"Folder '{folder}' has format version {values.get('format_version')!r} (written by {LIBRARY} "
            f"{values.get('library_version')}), but this one reads version {FORMAT_VERSION}: install that version, or export "
            "the run again."
        )
    try:
        return _checked(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"File '{file}' is damaged ({said}): export the run again.") from error


def _checked(values: dict[str, Any]) -> ExportConfig:
    kinds = {"format": str, "backbone": str | None, "stem": str, "channels_last": bool, "embed_dim": int}
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise ValueError(f"{name!r} is {values[name]!r}")
    shape = values["input_shape"]
    if not isinstance(shape, list) or not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"'input_shape' is {shape!r}")
    normalization = None
    pixels: dict[str, Any] = {}
    if (preprocessing := values["preprocessing"]) is not None:
        mean, std = (tuple(float(value) for value in preprocessing[name]) for name in ("mean", "std"))
        if len(mean) != len(std) or len(mean) not in (0, shape[0]) or not all(math.isfinite(m) for m in mean):
            raise ValueError(f"'mean' is {mean} and 'std' is {std}")
        if not all(0.0 < value < math.inf for value in std):
            raise ValueError(f"'std' is {std}")
        normalization = (mean, std)
        background, value_range, fit = (preprocessing[name] for name in PIXELS)
        if fit not in get_args(FitMode):
            raise ValueError(f"'fit' is {fit!r}")
        ImageColor.getrgb(background)
        if value_range is not None:
            low, high = map(float, value_range)
            value_range = (low, high)
        pixels = {"background": background, "value_range": value_range, "fit": fit}
    return ExportConfig(
        input_shape=tuple(shape), normalization=normalization, **pixels, **{name: values[name] for name in kinds}
    )


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of an exported folder by name; pickles are never opened.

    Raises:
        CheckpointError: If the file is missing, truncated or damaged.
    """
    file = Path(folder) / WEIGHTS
    if not file.is_file():
        others = sorted(path.name for path in Path(folder).glob("*") if path.suffix in PICKLES | {".onnx"})
        cure = "give a folder that `diet export` wrote"
        if any(Path(name).suffix in PICKLES for name in others):
            cure = f"{others} could run code when loaded and are refused; export the run again"
        elif others:
            cure = f"{others} are for ONNX's runtimes; export the run with --format safetensors"
        raise CheckpointError(f"Folder '{folder}' holds no {WEIGHTS}: {cure}.")
    return read_safetensors(file)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file in safetensors' format by name.

    Raises:
        CheckpointError: If the file is missing, truncated or damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"File '{file}' cannot be read ({error}): it is truncated or damaged; copy it again, or export the run again."
        ) from error


def sum_channels(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with a first convolution of RGB images summed over the channels, where the network reads gray ones.

    The network's output is then that of the weights for three equal channels.

    Args:
        there: The weights to load.
        here: The weights of the network.
    """
    gray = {name for name, value in here.items() if value.ndim == 4 and value.shape[1] == 1}
    return {
        name: value.sum(1, keepdim=True) if name in gray and value.ndim == 4 and value.shape[1] == 3 else value
        for name, value in there.items()
    }


def first_difference(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> str | None:
    """Name and shapes of the first weight that `there` or `here` lacks or that differs in shape; None if all agree."""
    theirs, ours = ({name: tuple(value.shape) for name, value in each.items()} for each in (there, here))
    for name in {**theirs, **ours}:
        if theirs.get(name) != ours.get(name):
            return f"'{name}' has shape {theirs.get(name)} there and {ours.get(name)} in the network"
    return None


def load_weights(model: nn.Module, folder: str | Path) -> None:
    """Loads the weights of an exported folder, and their dtype, into a network of its architecture.

    Raises:
        CheckpointError: If the weights cannot be read, or do not fit the network.
    """
    weights = read_weights(folder)
    if read_config(folder).input_shape[0] == 3:  # a folder whose weights have other channels than it says is damaged
        weights = sum_channels(weights, model.state_dict())
    if (difference := first_difference(weights, model.state_dict())) is not None:
        raise CheckpointError(
            f"The weights in '{folder}' do not fit the network: {difference}; use the network that was exported."
        )
    dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
    if len(dtypes) == 1:
        model.to(dtypes.pop())
    model.load_state_dict(weights)
