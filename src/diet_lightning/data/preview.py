"""Preview: some training samples as the network sees them, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from diet_lightning.data.class_names import class_name
from diet_lightning.data.survey import evenly_spaced
from diet_lightning.errors import DataError
from diet_lightning.utilities.text import printable

if TYPE_CHECKING:
    from diet_lightning.data.reading import SplitReader


@dataclass(frozen=True)
class Preview:
    """Training samples as inputs of the network, without the normalisation.

    Attributes:
        clean: ``(n, H, W)`` or ``(n, H, W, 3)`` in [0, 1].
        augmented: The same samples augmented, of the same shape.
        titles: Class of each, "" without one.
        names: File name of each, or its index.
        note: Which channels are shown, if not all; else "".
    """

    clean: NDArray[Any]
    augmented: NDArray[Any]
    titles: list[str]
    names: list[str]
    note: str


def make_preview(data: SplitReader, count: int = 16) -> Preview:
    """Up to `count` evenly spaced training samples, clean and augmented as in training.

    Args:
        data: Data of images.
        count: Number of samples.

    Returns:
        Their pictures.

    Raises:
        DataError: If the inputs are not images.
    """
    if len(data.input_shape) != 3:
        raise DataError(f"Inputs of shape {data.input_shape} are not images, so there are no pictures of them.")
    indices = evenly_spaced(data.num_samples, count)
    batch, summary = data.raw_samples("train", indices), data.summary()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (summary.mean, summary.std))

    def pixels(inputs: Tensor) -> NDArray[Any]:
        unit = (inputs.double() * std + mean).clamp(0.0, 1.0)
        pictures: NDArray[Any] = unit[:, :3].permute(0, 2, 3, 1).numpy() if len(mean) >= 3 else unit[:, 0].numpy()
        return pictures

    channels = len(mean)
    shown = "the first three" if channels > 3 else "the first"
    names = data.names("train")
    return Preview(
        pixels(data.network_inputs(batch.input)),
        pixels(data.network_inputs(batch.input, draw=0)),
        [printable(class_name(label, data.class_names)) for label in batch.label.tolist()],
        [_file_name(names, index) for index in indices],
        "" if channels in (1, 3) else f"Of {channels} channels {shown} {'are' if channels > 3 else 'is'} shown",
    )


def _file_name(names: Sequence[str] | None, index: int) -> str:
    return f"#{index}" if names is None or not names[index] else printable(PurePosixPath(names[index]).name)
