"""The README.md of an exported folder: a model card with the known facts of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from diet_lightning.backbones.exported import ExportConfig
from diet_lightning.runs.scores import Score

PAPER = "https://arxiv.org/abs/2406.10743"
LIBRARIES = {"safetensors": "diet-lightning", "onnx": "onnx", "timm": "timm"}


@dataclass(frozen=True)
class RunFacts:
    """Facts of the run that trained a network, by name.

    Attributes:
        data: Facts of the training data.
        recipe: Settings of the training.
        training: Values measured during training.
        evaluation: Values measured after training.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Score] = field(default_factory=dict)
    evaluation: Mapping[str, Score] = field(default_factory=dict)


def model_card(config: ExportConfig, facts: RunFacts | None) -> str:
    """Makes a model card in the format of the Hugging Face Hub.

    Args:
        config: Config of the exported network.
        facts: Facts of its run; None if unknown.

    Returns:
        Markdown, with YAML in front.
    """
    front = {"library_name": LIBRARIES[config.format], "pipeline_tag": "image-feature-extraction"}
    if len(config.input_shape) != 3:
        front["pipeline_tag"] = "feature-extraction"
    tags = ["feature-extraction", *(["self-supervised-learning", "diet"] if facts is not None else [])]
    name = "a custom module" if config.backbone is None else f"`{config.backbone}` ({config.stem} stem)"
    origin = (
        "How it was trained is not recorded."
        if facts is None
        else f"It was trained by [DIET]({PAPER}), without labels; DIET's head is left out."
    )
    parts = [
        f"---\n{yaml.safe_dump({**front, 'tags': tags}, sort_keys=False)}---",
        "# Feature extractor",
        f"The network is {name}: inputs of shape {_shape(config.input_shape)} → embeddings of {config.embed_dim} numbers. "
        f"{origin}",
        f"## Use\n\n```python\n{SNIPPETS[config.format](config)}\n```",
        f"## Inputs\n\n{_inputs(config)}",
    ]
    if facts is not None:
        parts += [
            f"## Data\n\n{_listed(facts.data)}",
            f"## Recipe\n\n{_listed(facts.recipe)}",
            f"## Measured\n\n{_measured(facts)}",
        ]
    parts.append(
        "## Licence\n\nTo be chosen by whoever publishes the weights: `license:` in the front matter names it."
    )
    return "\n\n".join(parts) + "\n"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)


def _inputs(config: ExportConfig) -> str:
    if config.normalization is None:
        return "How the inputs were scaled is not recorded."
    mean, std = config.normalization
    said = "Bytes are divided by 255"
    if mean:
        said += (
            f", then normalised by the mean {_numbers(mean)} and the standard deviation {_numbers(std)} of each channel"
        )
    if len(config.input_shape) == 3:
        height, width = config.input_shape[1:]
        said = (
            f"Images have {height}×{width} pixels: of files, the shorter side is resized and the centre taken. {said}"
        )
    return f"{said}."


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: `{value}`" for name, value in values.items()) or "Not recorded."


def _measured(facts: RunFacts) -> str:
    def table(title: str, values: Mapping[str, Score]) -> str:
        rows = [f"| {name} | {each.value:.4f} | {_interval(each)} |" for name, each in values.items()]
        return "\n".join([f"| {title} | value | interval |", "|---|---|---|", *rows])

    parts = [table("while training", facts.training)] if facts.training else ["No values of the training are recorded."]
    if not any("_top1" in name for name in facts.training):
        parts.append("No probe was measured while training.")
    parts.append(table("evaluation", facts.evaluation) if facts.evaluation else "No evaluation is recorded.")
    return "\n\n".join(parts)


def _interval(measured: Score) -> str:
    if measured.low is None or measured.high is None:
        return ""
    return f"{measured.low:.4f} to {measured.high:.4f}"


def _safetensors_snippet(config: ExportConfig) -> str:
    own = config.backbone is None
    load = "load_backbone(folder, backbone=MyNetwork())" if own else "load_backbone(folder)"
    lines = ["import torch", "from diet_lightning.export import load_backbone, load_preprocessing", ""]
    lines += ['folder = "."  # this one']
    lines += [f"backbone = {load}" + ("  # the class that was exported" if own else "")]
    shape = ", ".join(str(size) for size in config.input_shape)
    if config.normalization is None:
        lines += [f"inputs = torch.zeros(2, {shape})"]
    else:
        also = "; or PIL images" if len(config.input_shape) == 3 and config.input_shape[0] in (1, 3) else ""
        lines += ["preprocess = load_preprocessing(folder)"]
        lines += [f"inputs = preprocess(torch.zeros(2, {shape}, dtype=torch.uint8))  # bytes{also}"]
    lines += ["with torch.inference_mode():", f"    features = backbone(inputs)  # (2, {config.embed_dim})"]
    return "\n".join(lines)


def _onnx_snippet(config: ExportConfig) -> str:
    shape = ", ".join(str(size) for size in config.input_shape)
    lines = ["import numpy as np", "import onnxruntime", "", 'session = onnxruntime.InferenceSession("model.onnx")']
    if config.normalization is None:
        lines += [f"inputs = np.zeros((2, {shape}), np.float32)"]
    else:
        lines += [f"stored = np.zeros((2, {shape}), np.uint8)", "inputs = stored.astype(np.float32) / 255"]
        if config.normalization[0]:
            axes = [1, -1, *(1 for _ in config.input_shape[1:])]
            for name, values in zip(("mean", "std"), config.normalization, strict=True):
                lines += [f"{name} = np.array({list(values)}, np.float32).reshape({axes})"]
            lines += ["inputs = (inputs - mean) / std"]
    lines += [f'features = session.run(["features"], {{"input": inputs}})[0]  # (2, {config.embed_dim})']
    return "\n".join(lines)


def _timm_snippet(config: ExportConfig) -> str:
    shape = ", ".join(str(size) for size in config.input_shape)
    lines = ["import timm  # 1.0.16 or newer", "import torch", ""]
    lines += ['model = timm.create_model("local-dir:.", pretrained=True).eval()  # this folder']
    lines += ["transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))  # of PIL images"]
    lines += [
        "with torch.inference_mode():",
        f"    features = model(torch.zeros(2, {shape}))  # (2, {config.embed_dim})",
    ]
    return "\n".join(lines)


SNIPPETS = {"safetensors": _safetensors_snippet, "onnx": _onnx_snippet, "timm": _timm_snippet}
