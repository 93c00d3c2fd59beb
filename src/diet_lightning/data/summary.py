"""DataSummary: what was read, as a table for people and as plain values for ``run.json``."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.transforms.pipeline import InputPipeline

SHOWN = 5  # classes, modes or channels that are listed
WIDTH, INDENT = 100, 12  # characters of a line, and of the first column


@dataclass(frozen=True)
class SplitSummary:
    """Samples and classes of a split.

    Attributes:
        num_samples: Number of samples.
        also: The missing split that this one replaces; None if there is none.
        num_unlabelled: Number of samples without a label; None if the data set does not list its labels.
        num_classes: Number of classes that occur; None without labels.
        class_sizes: Smallest and largest number of samples of a class.
        first_classes: Name and number of samples of the first few classes.
        single_classes: Names of the classes with one sample.
    """

    num_samples: int
    also: str | None
    num_unlabelled: int | None
    num_classes: int | None
    class_sizes: list[int]
    first_classes: list[list[Any]]
    single_classes: list[str]

    @classmethod
    def of(cls, split: IndexedDataset, also: str | None, class_names: Sequence[str] | None) -> SplitSummary:
        """Counts the labels of a split.

        Args:
            split: The split.
            also: The missing split that it replaces, or None.
            class_names: Names of the labels, or None.
        """
        labels = split.dataset.labels
        if labels is None:
            return cls(len(split), also, None, None, [], [], [])
        found, counts = torch.unique(labels[labels != NO_LABEL], return_counts=True)
        sizes = [
            [class_name(label, class_names), count]
            for label, count in zip(found.tolist(), counts.tolist(), strict=True)
        ]
        return cls(
            len(split),
            also,
            int((labels == NO_LABEL).sum()),
            len(sizes) or None,
            [int(counts.min()), int(counts.max())] if sizes else [],
            sizes[:SHOWN],
            [name for name, count in sizes if count == 1],
        )

    def text(self) -> str:
        """One line."""
        words = f"{self.num_samples:,} samples"
        if self.num_classes:
            low, high = self.class_sizes
            shown = _listed([f"{name} ({count:,})" for name, count in self.first_classes], self.num_classes)
            spread = f" of {low:,}–{high:,}" if self.num_classes > SHOWN and low < high else ""
            words += f", {self.num_classes:,} class{'es' * (self.num_classes > 1)}{spread}: {shown}"
            words += f"; {self.num_unlabelled:,} without a label" if self.num_unlabelled else ""
        elif self.num_unlabelled:
            words += " without labels"
        return words + (f"; also used as {self.also}" if self.also else "")


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
        image_size: Side to which the central square of each is resized, in pixels; None keeps the images.
    """

    num_looked_at: int
    width: list[int]
    height: list[int]
    modes: dict[str, int]
    num_wide: int
    num_transparent: int
    image_size: int | None

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
            origin.image_size,
        )

    def text(self, num_samples: int) -> str:
        """One line.

        Args:
            num_samples: Number of training images.
        """
        count = self.num_looked_at
        looked_at = f"all {count:,}" if count == num_samples else f"{count:,} of {num_samples:,} looked at"
        modes = [mode if number == count else f"{mode} ({number:,})" for mode, number in self.modes.items()]
        bits = (
            "more than 8 bits"
            if self.num_wide == count
            else f"8 bits, {self.num_wide:,} of them more"
            if self.num_wide
            else "8 bits"
        )
        size = f"width {_interval(self.width)}, height {_interval(self.height)} pixels"
        return f"{looked_at}: {size}; {_listed(modes, len(modes))}; {bits}"


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
            pipeline.mean,
            pipeline.std,
            [*notes, *_single_class_notes(found["train"])],
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
            cropped = self.images is not None and self.images.image_size is not None
            text = f"{channels} channel{'s' * (channels > 1)} of {_shape(size)} pixels"
            text += " (height × width)" * (size[0] != size[1])
            rows.append(("network", f"{text}{', the central square of each image' * cropped}"))
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
        mean, std = (_listed([f"{value:.3f}" for value in values], len(values)) for values in (self.mean, self.std))
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


def _single_class_notes(train: SplitSummary) -> list[str]:
    names = train.single_classes
    if not names:
        return []
    shown = _listed([repr(name) for name in names], len(names))
    if len(names) == 1:
        return [f"Class {shown} has a single training sample: check that it is a class."]
    return [
        f"{len(names):,} of {train.num_classes:,} classes have a single training sample: {shown}; check that they are classes."
    ]


def class_name(label: int, names: Sequence[str] | None) -> str:
    """The name of a class, its number if it has none."""
    return str(names[label]) if names is not None and 0 <= label < len(names) else str(label)


def _listed(words: Sequence[str], count: int) -> str:
    """The first few words, and a mark where there are more."""
    return ", ".join([*words[:SHOWN], *(["…"] if count > min(SHOWN, len(words)) else [])])


def _interval(ends: Sequence[int]) -> str:
    low, high = ends
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def printable(text: str) -> str:
    """A text without control characters and bytes outside of the encoding, which names of files may have."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
