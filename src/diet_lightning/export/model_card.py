"""The README.md of an exported folder: a model card with the known facts of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Template

from diet_lightning.backbones.exported import ExportConfig
from diet_lightning.runs.scores import Score


@dataclass(frozen=True)
class RunFacts:
    """Facts of the run that trained a network, by name."""

    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)  # settings of the training
    training: Mapping[str, Score] = field(default_factory=dict)  # measured during training
    evaluation: Mapping[str, Score] = field(default_factory=dict)  # measured after it


def model_card(config: ExportConfig, facts: RunFacts | None) -> str:
    """Makes a model card in the format of the Hugging Face Hub: Markdown, with YAML in front."""
    # huggingface_hub.ModelCard renders such a template too, but is installed only with the extras hf and timm
    text = Path(__file__).with_name("model_card.md.jinja").read_text(encoding="utf-8")
    template: Template = Template(text, trim_blocks=True, keep_trailing_newline=True)
    mean, std = config.normalization or ((), ())
    is_image = len(config.input_shape) == 3
    return template.render(
        vars(config),
        facts=facts,
        mean=mean,
        std=std,
        batch=", ".join(map(str, (2, *config.input_shape))),
        is_image=is_image,
        takes_pictures=is_image and config.input_shape[0] in (1, 3),
    )
