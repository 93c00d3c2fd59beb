"""What the audit's tables and its page say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diet_lightning.audit.audit import Findings
from diet_lightning.audit.html_page import Card, Section
from diet_lightning.audit.near_duplicates import Duplicates
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.training.module import DIETModule
from diet_lightning.transforms.convert import to_pixels

EXTREMES = 60  # of the hardest, and of the easiest samples on the page


def sample_columns(found: Findings, data: DIETDataModule, names: Sequence[str] | None) -> dict[str, Sequence[Any]]:
    """Columns of the table of all samples."""
    count = len(found.loss)
    columns: dict[str, Sequence[Any]] = {"index": list(range(count))}
    if names is not None:
        columns["path"] = names
    order = np.argsort(np.argsort(found.loss, kind="stable"), kind="stable")
    columns |= {
        "loss": found.loss.tolist(),
        "loss_spread": found.spread.tolist(),
        "loss_percentile": (100.0 * order / max(1, count - 1)).tolist(),
        "confused_with": found.confused_with.tolist(),
        "confusion": found.confusion.tolist(),
        "duplicate_group": found.duplicates.group.tolist(),
    }
    if bool((found.labels >= 0).any()):
        word = _class_word(data)
        columns |= {
            "label": found.labels.tolist(),
            "label_name": [word(label) for label in found.labels.tolist()],
            "suggested_label": found.doubts.suggested.tolist(),
            "suggested_name": [word(label) for label in found.doubts.suggested.tolist()],
            "label_doubt": found.doubts.doubt.tolist(),
        }
    return columns


def pair_columns(found: Findings, module: DIETModule) -> dict[str, Sequence[Any]]:
    """Columns of the table of near-duplicate pairs, the surest first."""
    pairs = torch.from_numpy(found.duplicates.pairs)
    rows = torch.nn.functional.normalize(module.head.weight.detach().float(), dim=1)
    return {
        "first": pairs[:, 0].tolist(),
        "second": pairs[:, 1].tolist(),
        "similarity": found.duplicates.similarity.tolist(),
        "chance": found.duplicates.chance.tolist(),
        "row_similarity": (rows[pairs[:, 0]] * rows[pairs[:, 1]]).sum(dim=1).tolist(),
        "confused": [bool(found.confused_with[a] == b or found.confused_with[b] == a) for a, b in pairs.tolist()],
        "same_label": (found.labels[pairs[:, 0]] == found.labels[pairs[:, 1]]).tolist(),
    }


def _class_word(data: DIETDataModule) -> Any:
    names = data.class_names

    def word(label: int) -> str:
        return "" if label < 0 else str(names[label]) if names is not None and label < len(names) else str(label)

    return word


def sections(found: Findings, data: DIETDataModule, names: Sequence[str] | None, pictures: int) -> list[Section]:
    """The page: hardest and easiest samples, near-duplicates and, where there are labels, doubtful ones."""
    word = _class_word(data)
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
            "The classifier tells these least from the rest: unusual, blurred, empty or damaged ones are among them. Loss is the "
            "mean over augmented views, in nats.",
            [[card(n, f"loss {found.loss[n]:.3f}") for n in order[::-1][:ends].tolist()]],
        ),
        Section(
            "Easiest samples",
            "Told from all others at a glance: often strange borders, marks or colours that no other sample has.",
            [[card(n, f"loss {found.loss[n]:.3f}") for n in order[:ends].tolist()]],
        ),
    ]
    left = pictures - 2 * ends
    groups: list[list[Card]] = []
    for number in _by_surety(found.duplicates):
        members = np.flatnonzero(found.duplicates.group == number).tolist()
        if len(members) > left * 0.6 or left < 2:
            break
        groups.append([card(n) for n in members])
        left -= len(members)
    sections.append(
        Section(
            "Near-duplicates",
            f"Each frame holds samples that lie closer than chance allows, the surest first ({len(groups)} of "
            f"{found.duplicates.group.max() + 1} groups shown); duplicates.csv has every pair.",
            groups,
        )
    )
    if bool((found.labels >= 0).any()):
        doubtful = np.argsort(-found.doubts.doubt, kind="stable")
        chosen = [n for n in doubtful[: max(0, left)].tolist() if found.doubts.doubt[n] > 0.0]
        sections.append(
            Section(
                "Doubtful labels",
                "Their neighbours have another label, the surest first. With embeddings that tell the classes apart poorly, many "
                "of these are right.",
                [
                    [
                        card(
                            n,
                            f"neighbours say {word(int(found.doubts.suggested[n]))}",
                            f"doubt {found.doubts.doubt[n]:.2f}",
                        )
                        for n in chosen
                    ]
                ],
            )
        )
    return sections


def _by_surety(duplicates: Duplicates) -> list[int]:
    seen = dict.fromkeys(int(duplicates.group[first]) for first, _ in duplicates.pairs)  # pairs come the surest first
    return list(seen)


def summary(found: Findings) -> dict[str, Any]:
    """How much was found: numbers, and a sentence under ``words``."""
    groups, pairs = int(found.duplicates.group.max()) + 1, len(found.duplicates.pairs)
    numbers: dict[str, Any] = {"samples": len(found.loss), "duplicate_pairs": pairs, "duplicate_groups": groups}
    words = f"{pairs} near-duplicate pairs in {groups} groups."
    if bool((found.labels >= 0).any()):
        numbers["doubtful_labels"] = int((found.doubts.doubt > 0.0).sum())
        words += f" Neighbours disagree with {numbers['doubtful_labels']} labels."
    else:
        words += " There are no labels, so none can be doubted; nothing else here needs them."
    return {**numbers, "words": words}
