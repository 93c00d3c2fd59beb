"""DataSummary: what was read, as a table for people and as plain values for ``run.json``."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.split_summary import SplitSummary
from diet_lightning.transforms.pipeline import InputPipeline
from diet_lightning.utilities.text import first_few, printable

WIDTH, INDENT = 100, 12  # characters of a line, and of the first column


@dataclass(frozen=True)
class ImageSummary:
    """What the training images are before they are decoded, from the headers that were looked at.

    Attributes:
        num_looked_at: Number of images.
        width: Smallest and largest, in pixels.
        height: Smallest and largest, in pixels.
        modes: Pillow's mode → number of images, the most frequent first.
        num_wide: Number of images with more than 8 bits per channel.
        num_transparent: Number of images that may have transparent pixels.
        stored_side: Shorter side to which larger ones are reduced in memory or in a cache, in pixels; None if they are decoded
            on the fly or keep their size.
    """

    num_looked_at: int
    width: list[int]
    height: list[int]
    modes: dict[str, int]
    num_wide: int
    num_transparent: int
    stored_side: int | None

    @classmethod
    def of(cls, dataset: SampleDataset) -> ImageSummary | None:
        """Looks at the images of a data set; None if it is not decoded from images, or none of them can be read."""
        origin = getattr(dataset, "origin", None) or dataset
        if not isinstance(origin, ImageDataset):
            return None
        headers = list(origin.headers.values())
        if not headers:
            return None
        widths, heights = zip(*(header.size for header in headers), strict=True)
        return cls(
            len(headers),
            [min(widths), max(widths)],
            [min(heights), max(heights)],
            dict(Counter(header.mode for header in headers).most_common()),
            sum(header.wide for header in headers),
            sum(header.transparent for header in headers),
            None if dataset is origin or origin.whole is None else max(origin.whole.side),
        )

    def text(self, num_samples: int) -> str:
        """One line.

        Args:
            num_samples: Number of training images.
        """
        count = self.num_looked_at
        looked_at = f"all {count:,}" if count == num_samples else f"{count:,} of {num_samples:,} looked at"
        modes = [mode if number == count else f"{mode} ({number:,})" for mode, number in self.modes.items()]
        some = f"{self.num_wide:,} of " * (self.num_wide < count)
        bits = f"{some}more than 8 bits" if self.num_wide else "8 bits"
        size = f"width {_interval(self.width)}, height {_interval(self.height)} pixels"
        stored = f"; stored with a shorter side of at most {self.stored_side} pixels" * bool(self.stored_side)
        return f"{looked_at}: {size}; {first_few(modes)}; {bits}{stored}"


@dataclass(frozen=True)
class DataSummary:
    """What was read.

    Attributes:
        source: The data, as for `DIETDataModule`.
        splits: Name → samples and classes; a split that replaces a missing one is listed once.
        images: The training images before they are decoded; None for arrays and data sets of other kinds.
        stored_dtype: Dtype of the samples as they are stored, such as ``"uint8"``.
        stored_shape: Shape of the first of them.
        input_shape: Shape of one input of the network, ``(C, H, W)`` for images.
        value_range: The values that become 0 and 1; None for inputs that keep their values.
        background: Color behind transparent pixels; None without images.
        seen: Which part of an image training and evaluation see; None for inputs other than images.
        mean: Mean of each channel on a scale of 0 to 1, which is subtracted; empty for none.
        std: Standard deviation of each channel, by which is divided.
        notes: One sentence for each decision, for all that was left out, and on classes with a single training sample.
    """

    source: str
    splits: dict[str, SplitSummary]
    images: ImageSummary | None
    stored_dtype: str
    stored_shape: list[int]
    input_shape: list[int]
    value_range: list[float] | None
    background: str | None
    seen: str | None
    mean: list[float]
    std: list[float]
    notes: list[str]

    @classmethod
    def of(
        cls,
        source: str,
        splits: Mapping[str, IndexedDataset],
        class_names: Sequence[str] | None,
        read: ReadConfig,
        pipeline: InputPipeline,
        notes: Sequence[str],
    ) -> DataSummary:
        """Looks at opened data.

        Args:
            source: The data, as for `DIETDataModule`.
            splits: Name → the split; two names may refer to one split.
            class_names: Names of the labels, or None.
            read: How the data were read, with the range of values that was found.
            pipeline: Makes the network's inputs.
            notes: Sentences of those that opened the data.
        """
        first: dict[int, str] = {}
        also: dict[str, str] = {}
        for name, split in splits.items():
            if first.setdefault(id(split), name) != name:
                also[first[id(split)]] = name
        found = {name: SplitSummary.of(splits[name], also.get(name), class_names) for name in first.values()}
        train = splits["train"]
        stored, images = train[0].input, ImageSummary.of(train.dataset)
        scaled = pipeline.is_image and (images is None or images.num_wide) and read.value_range is not None
        sides = stored.shape[-2:], pipeline.input_shape[-2:]
        same_ratio = not train.dataset.has_sizes and sides[0][0] * sides[1][-1] == sides[0][-1] * sides[1][0]
        byte_range = [0.0, 255.0] if stored.dtype == torch.uint8 else None
        return cls(
            source,
            found,
            images,
            str(stored.dtype).removeprefix("torch."),
            list(stored.shape),
            list(pipeline.input_shape),
            [float(value) for value in read.value_range or ()] if scaled else byte_range,
            None if images is None else read.background,
            pipeline.seen(same_ratio) if pipeline.is_image else None,
            pipeline.mean,
            pipeline.std,
            [*notes, *found["train"].single_class_notes()],
        )

    def as_dict(self) -> dict[str, Any]:
        """The summary as plain values: numbers, text, lists and dictionaries."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Rows of the table, each a name and a text; each note is a row of its own."""
        rows = [(name, split.text()) for name, split in self.splits.items()]
        if self.images is None:
            rows.append(("stored", f"{self.stored_dtype}, {_shape(self.stored_shape)}"))
        else:
            rows.append(("images", self.images.text(self.splits["train"].num_samples)))
        channels, *size = self.input_shape
        if len(size) == 2:
            text = f"{channels} channel{'s' * (channels > 1)} of {_shape(size)} pixels"
            text += " (height × width)" * (size[0] != size[1])
            rows.append(("network", f"{text}; {self.seen}"))
        else:
            rows.append(("network", f"inputs of shape ({', '.join(map(str, self.input_shape))})"))
        rows.append(("values", f"{self._scaling()}; {self._normalization()}"))
        return [(name, printable(text)) for name, text in [*rows, *(("note", note) for note in self.notes)]]

    def _scaling(self) -> str:
        if self.value_range is None:
            return "kept as they are"
        low, high = (f"{value:.6g}" for value in self.value_range)
        some = self.images is not None and 0 < self.images.num_wide < self.images.num_looked_at
        return f"{low} … {high} become 0 … 1{', those of 8 bits 0 … 255' if some else ''}"

    def _normalization(self) -> str:
        if not self.mean:
            return "no mean subtracted"
        mean, std = (first_few([f"{value:.3f}" for value in values]) for values in (self.mean, self.std))
        return f"minus mean {mean}, divided by std {std}"

    def lines(self) -> list[str]:
        """The table as lines of at most 100 characters."""
        lines = [f"What was read from {printable(self.source)}:"]
        for name, text in self.rows():
            head = f"  {name:<{INDENT - 2}}"
            lines += textwrap.wrap(
                text, WIDTH, initial_indent=head, subsequent_indent=" " * INDENT, break_on_hyphens=False
            )
        return lines


def _interval(ends: Sequence[int]) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
