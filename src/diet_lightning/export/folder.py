"""Writes a trained backbone to a folder for other programs, as safetensors, ONNX or in timm's format, and loads it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diet_lightning.__about__ import __version__
from diet_lightning.backbones.architectures import timm_arguments
from diet_lightning.backbones.exported import CONFIG, PIXELS, WEIGHTS, ExportConfig, load_weights, read_config
from diet_lightning.backbones.factory import Backbone, create_backbone, find_embed_dim, load_exported
from diet_lightning.errors import CheckpointError, ConfigurationError, require
from diet_lightning.export.model_card import RunFacts, model_card
from diet_lightning.export.onnx import OPSET, write_onnx
from diet_lightning.transforms.preprocessing import Preprocessing
from diet_lightning.utilities.files import partial_of, require_empty_dir, require_writable, write_json


def export_backbone(
    backbone: nn.Module,
    folder: str | Path,
    format: str = "safetensors",
    input_shape: tuple[int, ...] | None = None,
    preprocessing: Preprocessing | None = None,
    facts: RunFacts | None = None,
) -> Path:
    """Writes a network's weights, its config and a model card into a folder. An interruption leaves no folder.

    Args:
        backbone: A result of `create_backbone`, such as ``module.backbone`` of a trained `DIETModule`; or any module that
            returns embeddings ``(B, K)``. It is not changed.
        folder: Output folder, which must not exist or be empty.
        format: ``"safetensors"``: for `load_backbone`, `create_backbone` and programs that read safetensors.
            ``"onnx"``: the computation in float32, for batches of any size, from ``input`` to ``features``.
            ``"timm"``: for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.
        input_shape: Shape of one input; required if `backbone` does not have it.
        preprocessing: Preprocessing of the network's inputs; None if unknown.
        facts: Facts of the run, for the model card; None if unknown.

    Returns:
        The folder.

    Raises:
        ConfigurationError: For an unknown format, a folder that is not empty, or a network that the format cannot store.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export_backbone(create_backbone("resnet8", (1, 8, 8)), f"{folder}/digits")
        ...     load_backbone(f"{folder}/digits")(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 128])
    """
    require(format in FORMATS, "format", f"one of {list(FORMATS)}", format)
    normalization = None
    pixels: dict[str, Any] = {}
    if preprocessing is not None:
        input_shape, normalization = preprocessing.input_shape, (preprocessing.mean, preprocessing.std)
        pixels = {name: getattr(preprocessing, name) for name in PIXELS}
    found, shape = _as_backbone(backbone, input_shape)
    is_last = found.layout == torch.channels_last
    name, dim = _known_name(found, shape), found.embed_dim
    config = ExportConfig(format, name, found.stem, is_last, shape, dim, normalization, **pixels)
    target = Path(folder)
    require_empty_dir(target)
    if not target.name or (target.is_dir() and target.samefile(Path.cwd())):
        raise ConfigurationError(f"Output folder '{folder}' is the current folder: choose one below it as `output`.")
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)  # left by an export that was killed
    try:
        with require_writable(f"Output folder '{folder}'"):
            partial.mkdir(parents=True)
            values = {**FORMATS[format](found, config, partial), **config.to_json(), "library_version": __version__}
            write_json(partial / CONFIG, values)
            (partial / "README.md").write_text(model_card(config, facts), encoding="utf-8")
            if target.exists():
                target.rmdir()
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def load_backbone(folder: str | Path, backbone: nn.Module | None = None) -> Backbone:
    """Loads an exported network, without running code from the folder.

    Args:
        folder: A folder that `export_backbone` or `diet export` wrote, in the format safetensors or timm.
        backbone: For a custom network: a module of its architecture, into which the weights are loaded.

    Returns:
        The feature extractor, in eval mode on the CPU.

    Raises:
        CheckpointError: If the folder cannot be read, or its weights do not fit.
    """
    config = read_config(folder)
    if backbone is None:
        found = load_exported(folder)
    else:
        load_weights(backbone, folder)
        embed_dim = find_embed_dim(backbone, type(backbone).__name__, config.input_shape)
        found = Backbone(backbone, embed_dim, input_shape=config.input_shape)
        found.lay_out(config.channels_last)
    if found.embed_dim != config.embed_dim:
        raise CheckpointError(
            f"The network in '{folder}' gives embeddings of {found.embed_dim} numbers, but its {CONFIG} says "
            f"{config.embed_dim}: export the run again."
        )
    return found.eval()


def load_preprocessing(folder: str | Path) -> Preprocessing:
    """Reads the preprocessing of an exported network's inputs.

    Args:
        folder: A folder that `export_backbone` or `diet export` wrote, in any format.

    Returns:
        A function of PIL images, or of a stored batch.

    Raises:
        CheckpointError: If the folder cannot be read, or does not record the preprocessing.
    """
    config = read_config(folder)
    if config.normalization is None:
        raise CheckpointError(
            f"Folder '{folder}' does not record the preprocessing of the network's inputs: use that of its training."
        )
    return Preprocessing(config.input_shape, *config.normalization, *(getattr(config, name) for name in PIXELS))


def _as_backbone(module: nn.Module, input_shape: tuple[int, ...] | None) -> tuple[Backbone, tuple[int, ...]]:
    shape = module.input_shape if input_shape is None and isinstance(module, Backbone) else input_shape
    if shape is None:
        raise ConfigurationError(
            f"Expected argument `input_shape` for backbone {type(module).__name__}, such as (3, 224, 224), but got None."
        )
    embed_dim = find_embed_dim(module, type(module).__name__, tuple(shape))
    return module if isinstance(module, Backbone) else Backbone(module, embed_dim), tuple(shape)


def _known_name(backbone: Backbone, shape: tuple[int, ...]) -> str | None:
    """The name of the architecture; None if the network was changed after it was built."""
    if backbone.name is None:
        return None
    with torch.random.fork_rng(devices=[]):
        built = create_backbone(backbone.name, shape, backbone.stem).model
    here, there = ({key: value.shape for key, value in each.state_dict().items()} for each in (backbone.model, built))
    return backbone.name if here == there else None


def _write_safetensors(backbone: Backbone, config: ExportConfig, folder: Path) -> dict[str, Any]:
    weights = {}
    for name, value in backbone.model.state_dict().items():
        kind = value.layout if isinstance(value, Tensor) else type(value).__name__
        if kind != torch.strided:
            raise ConfigurationError(
                f"Expected every entry of the network's state to be a dense tensor, but {name!r} is {kind}: safetensors cannot "
                "hold it."
            )
        # a copy, since safetensors rejects weights that share memory
        weights[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return {}


def _write_timm(backbone: Backbone, config: ExportConfig, folder: Path) -> dict[str, Any]:
    name = config.backbone or ""
    if not name.startswith("timm/"):
        raise ConfigurationError(
            f"Expected a backbone 'timm/NAME' for format='timm', but got {name or 'a custom module'!r}: use "
            "format='safetensors'."
        )
    if config.stem == "small":
        raise ConfigurationError(
            f"format='timm' cannot hold backbone {name!r} with the stem for small images, which timm cannot build: "
            "use format='safetensors', or train with stem='standard'."
        )
    _write_safetensors(backbone, config, folder)
    # written without timm.models.save_for_hf, which adds the licence, tag and origin of timm's weights to ours
    pretrained = {
        "input_size": config.input_shape,
        "num_classes": 0,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    if config.normalization is not None:
        mean, std = config.normalization
        channels = config.input_shape[0]
        pretrained |= {"mean": mean or [0.0] * channels, "std": std or [1.0] * channels}
    arguments = timm_arguments(name, config.input_shape)
    registered: Any = backbone.model.pretrained_cfg
    if registered.get("fixed_input_size"):  # the size that timm builds by default, as for models of any size
        arguments.setdefault("img_size", registered["input_size"][1:])
    return {
        "architecture": name.removeprefix("timm/"),
        "num_classes": 0,
        "num_features": config.embed_dim,
        "pretrained_cfg": pretrained,
        "model_args": arguments,
    }


def _write_onnx(backbone: Backbone, config: ExportConfig, folder: Path) -> dict[str, Any]:
    network = copy.deepcopy(backbone).cpu().float().eval()
    network.lay_out(channels_last=False)
    write_onnx(network.model, config.input_shape, folder / "model.onnx")
    return {"opset": OPSET}


FORMATS: dict[str, Callable[[Backbone, ExportConfig, Path], dict[str, Any]]] = {
    "safetensors": _write_safetensors,
    "onnx": _write_onnx,
    "timm": _write_timm,
}
