"""Tables of an audit, and its page: one HTML file with embedded pictures, which needs no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Template
from numpy.typing import NDArray
from PIL import Image

from diet_lightning.audit.audit import AuditResult
from diet_lightning.data.class_names import class_name
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.training.module import DIETModule
from diet_lightning.transforms.convert import to_pixels

MAX_EXTREMES = 60  # of the hardest, and of the easiest samples on the page
SIDE = 96  # pixels; larger pictures are made smaller
TINY = 24  # pixels; up to here every pixel counts, and a lossless file is hardly larger


@dataclass(frozen=True)
class Card:
    """One sample on the page."""

    picture: NDArray[np.uint8] | None  # (H, W) or (H, W, 3); None where the sample is not an image
    title: str
    lines: Sequence[str]  # below the title


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    name: str
    words: str
    groups: Sequence[Sequence[Card]] = ()  # a section of single samples has one group
    rows: Sequence[tuple[str, str]] = ()  # names and texts of a table, in place of groups


def sample_columns(
    found: AuditResult, classes: Sequence[str] | None, names: Sequence[str] | None
) -> dict[str, Sequence[Any]]:
    """Columns of the table of all samples."""
    count = len(found.loss)
    columns: dict[str, Sequence[Any]] = {"index": list(range(count))}
    if names is not None:
        columns["path"] = names
    order = np.argsort(np.argsort(found.loss, kind="stable"), kind="stable")
    columns |= {
        "loss": found.loss.tolist(),
        "loss_std": found.loss_std.tolist(),
        "loss_percentile": (100.0 * order / max(1, count - 1)).tolist(),
        "confused_with": found.confused_with.tolist(),
        "confusion": found.confusion.tolist(),
        "duplicate_group": found.duplicates.group.tolist(),
    }
    if bool((found.labels >= 0).any()):
        given, suggested = found.labels.tolist(), found.label_issues.suggested_label.tolist()
        columns |= {
            "label": given,
            "label_name": [class_name(label, classes) for label in given],
            "suggested_label": suggested,
            "suggested_label_name": [class_name(label, classes) for label in suggested],
            "label_issue_score": found.label_issues.score.tolist(),
        }
    return columns


def pair_columns(found: AuditResult, module: DIETModule) -> dict[str, Sequence[Any]]:
    """Columns of the table of near-duplicate pairs, sorted by p-value."""
    pairs = torch.from_numpy(found.duplicates.pairs)
    rows = module.head.weight.detach()[pairs].float()
    return {
        "first": pairs[:, 0].tolist(),
        "second": pairs[:, 1].tolist(),
        "similarity": found.duplicates.similarity.tolist(),
        "p_value": found.duplicates.p_value.tolist(),
        "row_similarity": F.cosine_similarity(rows[:, 0], rows[:, 1]).tolist(),
        "confused": [bool(found.confused_with[a] == b or found.confused_with[b] == a) for a, b in pairs.tolist()],
        "same_label": (found.labels[pairs[:, 0]] == found.labels[pairs[:, 1]]).tolist(),
    }


def sections(
    found: AuditResult, data: DIETDataModule, classes: Sequence[str] | None, names: Sequence[str] | None, pictures: int
) -> list[Section]:
    """Sections of the page: hardest and easiest samples, near-duplicates, label issues of labelled data, and what was read."""
    is_image = len(data.input_shape) == 3

    def card(sample: int, *lines: str) -> Card:
        pixels = to_pixels(data.raw_samples("train", [sample]).input[0]) if is_image else None
        path = [names[sample]] if names is not None else []
        label = class_name(int(found.labels[sample]), classes)
        return Card(pixels, f"#{sample}", [*path, *([f"label {label}"] if label else []), *lines])

    order = np.argsort(found.loss, kind="stable")
    ends = min(MAX_EXTREMES, len(order) // 2, max(1, pictures // 6))
    sections = [
        Section(
            "Hardest samples",
            "Samples with the largest loss, the mean over augmented views in nats: often unusual, blurred, empty or damaged.",
            [[card(n, f"loss {found.loss[n]:.3f}") for n in order[::-1][:ends].tolist()]],
        ),
        Section(
            "Easiest samples",
            "Samples with the smallest loss: often with borders, marks or colours that no other sample has.",
            [[card(n, f"loss {found.loss[n]:.3f}") for n in order[:ends].tolist()]],
        ),
    ]
    left = pictures - 2 * ends
    groups: list[list[Card]] = []
    for number in dict.fromkeys(found.duplicates.group[found.duplicates.pairs[:, 0]].tolist()):  # as pairs are sorted
        members = np.flatnonzero(found.duplicates.group == number).tolist()
        if len(members) > left * 0.6 or left < 2:
            break
        groups.append([card(n) for n in members])
        left -= len(members)
    sections.append(
        Section(
            "Near-duplicates",
            f"Each frame holds samples that are significantly close to each other, sorted by p-value ({len(groups)} of "
            f"{found.duplicates.group.max() + 1} groups shown); duplicates.csv has every pair.",
            groups,
        )
    )
    if bool((found.labels >= 0).any()):
        issues = found.label_issues
        ranked = np.argsort(-issues.score, kind="stable")[: max(0, left)].tolist()
        cards = [
            card(
                n,
                f"suggested label {class_name(int(issues.suggested_label[n]), classes)}",
                f"score {issues.score[n]:.2f}",
            )
            for n in ranked
            if issues.score[n] > 0.0
        ]
        sections.append(
            Section(
                "Label issues",
                "Samples whose neighbours have another label, sorted by label issue score. With embeddings that separate the "
                "classes poorly, many of these labels are right.",
                [cards],
            )
        )
    sections.append(Section("What was read", f"The data of this audit, {data.source}.", rows=data.summary().rows()))
    return sections


def page(title: str, words: Sequence[str], sections: Sequence[Section]) -> str:
    """Makes the page, HTML that needs no other file, from its heading, paragraphs and sections."""
    text = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    template: Template = Template(text, autoescape=True, trim_blocks=True)
    return template.render(title=title, words=words, sections=sections, data_url=_data_url)


def _data_url(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    form = "png" if max(image.size) <= TINY else "jpeg"
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, form, quality=80)
    return f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"


def summary(found: AuditResult) -> dict[str, Any]:
    """Counts of what was found, and a sentence under ``words``."""
    groups, pairs = int(found.duplicates.group.max()) + 1, len(found.duplicates.pairs)
    numbers: dict[str, Any] = {"samples": len(found.loss), "duplicate_pairs": pairs, "duplicate_groups": groups}
    words = f"{pairs} near-duplicate pairs in {groups} groups."
    if bool((found.labels >= 0).any()):
        numbers["label_issues"] = int((found.label_issues.score > 0.0).sum())
        words += f" Neighbours disagree with {numbers['label_issues']} labels."
    else:
        words += " The data have no labels, so label issues were not searched for; all other results need no labels."
    return {**numbers, "words": words}
