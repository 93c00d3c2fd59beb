"""Tables and page of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diet_lightning.audit.audit import AuditResult
from diet_lightning.audit.html_page import Card, Section
from diet_lightning.audit.near_duplicates import Duplicates
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.training.module import DIETModule
from diet_lightning.transforms.convert import to_pixels

EXTREMES = 60  # of the hardest, and of the easiest samples on the page


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
        word = _class_word(classes)
        columns |= {
            "label": found.labels.tolist(),
            "label_name": [word(label) for label in found.labels.tolist()],
            "suggested_label": found.label_issues.suggested_label.tolist(),
            "suggested_label_name": [word(label) for label in found.label_issues.suggested_label.tolist()],
            "label_issue_score": found.label_issues.score.tolist(),
        }
    return columns


def pair_columns(found: AuditResult, module: DIETModule) -> dict[str, Sequence[Any]]:
    """Columns of the table of near-duplicate pairs, sorted by p-value."""
    pairs = torch.from_numpy(found.duplicates.pairs)
    rows = torch.nn.functional.normalize(module.head.weight.detach().float(), dim=1)
    return {
        "first": pairs[:, 0].tolist(),
        "second": pairs[:, 1].tolist(),
        "similarity": found.duplicates.similarity.tolist(),
        "p_value": found.duplicates.p_value.tolist(),
        "row_similarity": (rows[pairs[:, 0]] * rows[pairs[:, 1]]).sum(dim=1).tolist(),
        "confused": [bool(found.confused_with[a] == b or found.confused_with[b] == a) for a, b in pairs.tolist()],
        "same_label": (found.labels[pairs[:, 0]] == found.labels[pairs[:, 1]]).tolist(),
    }


def _class_word(names: Sequence[str] | None) -> Any:

    def word(label: int) -> str:
        return "" if label < 0 else str(names[label]) if names is not None and label < len(names) else str(label)

    return word


def sections(
    found: AuditResult, data: DIETDataModule, classes: Sequence[str] | None, names: Sequence[str] | None, pictures: int
) -> list[Section]:
    """Sections of the page: hardest and easiest samples, near-duplicates, label issues of labelled data, and what was read."""
    word = _class_word(classes)
    images = len(data.input_shape) == 3

    def card(sample: int, *lines: str) -> Card:
        pixels = to_pixels(data.raw_samples("train", [sample]).input[0]) if images else None
        own = [names[sample]] if names is not None else []
        label = word(int(found.labels[sample]))
        return Card(pixels, f"#{sample}", [*own, *([f"label {label}"] if label else []), *lines])

    order = np.argsort(found.loss, kind="stable")
    ends = min(EXTREMES, len(order) // 2, max(1, pictures // 6))
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
    for number in _groups_by_p_value(found.duplicates):
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
        ranked = np.argsort(-found.label_issues.score, kind="stable")
        chosen = [n for n in ranked[: max(0, left)].tolist() if found.label_issues.score[n] > 0.0]
        sections.append(
            Section(
                "Label issues",
                "Samples whose neighbours have another label, sorted by label issue score. With embeddings that separate the "
                "classes poorly, many of these labels are right.",
                [
                    [
                        card(
                            n,
                            f"suggested label {word(int(found.label_issues.suggested_label[n]))}",
                            f"score {found.label_issues.score[n]:.2f}",
                        )
                        for n in chosen
                    ]
                ],
            )
        )
    sections.append(Section("What was read", f"The data of this audit, {data.source}.", rows=data.summary().rows()))
    return sections


def _groups_by_p_value(duplicates: Duplicates) -> list[int]:
    return list(dict.fromkeys(int(duplicates.group[first]) for first, _ in duplicates.pairs))  # as pairs are sorted


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
