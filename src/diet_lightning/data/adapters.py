"""Adapts data sets of users and libraries to `SampleDataset`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Subset, TensorDataset
from tqdm import tqdm

from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.columns import INPUT_KEYS, LABEL_KEYS
from diet_lightning.data.dataset import SampleDataset
from diet_lightning.data.metadata import digests_of, fingerprint_parts_of, labels_of, names_of, to_label
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.sample_form import SampleForm
from diet_lightning.data.survey import evenly_spaced
from diet_lightning.errors import DataError, DIETError
from diet_lightning.transforms.convert import to_tensor
from diet_lightning.transforms.geometry import Geometry
from diet_lightning.transforms.ragged import RaggedImages, join_images

SCALED_SAMPLES = 2**16  # samples whose values decide how all are scaled
PROBES = 64  # samples of which it is seen whether they have more than 8 bits


def adapt(dataset: Any, image_size: int | None = None) -> SampleDataset:
    """Any map-style data set as a `SampleDataset`.

    Args:
        dataset: A data set with ``__len__`` and ``__getitem__``; samples as `IndexedDataset` takes them.
        image_size: Side of the network's input in pixels, to which images of several sizes are brought, or None.

    Returns:
        The adapted data set; a `SampleDataset` unchanged.

    Raises:
        DataError: If the data set has no length.
    """
    if isinstance(dataset, SampleDataset):
        return dataset
    made = TensorMapDataset if isinstance(dataset, TensorDataset) else MapDataset
    return made(dataset, image_size)


class MapDataset(SampleDataset):
    """A map-style data set of a user or a library, whose samples are read one by one.

    Args:
        dataset: The data set.
        image_size: As for `adapt`.

    Attributes:
        columns: Keys of the input and of the label in samples that are mappings; None for the usual ones.

    Raises:
        DataError: If it has no length.
    """

    def __init__(self, dataset: Any, image_size: int | None = None) -> None:
        self.dataset = dataset
        self.image_size = image_size
        self.columns: tuple[str | None, str | None] = (None, None)
        self._labels: Tensor | None = None  # int64, shape (N,), replace those of the samples
        self._form: SampleForm | None = None  # how inputs become stored ones; None keeps tensors and arrays as they are
        self._length = self._measure()

    def _measure(self) -> int:
        try:
            return len(self.dataset)
        except TypeError as error:
            raise DataError(
                f"Data set {self.kind} has no length: DIET gives every sample a class of its own, so it needs a map-style "
                "data set with `__len__` and `__getitem__`."
            ) from error

    def __len__(self) -> int:
        """N, at the time when the data set was adapted."""
        return self._length

    @property
    def kind(self) -> str:
        """Name of the data set's own class."""
        return type(self.dataset).__name__

    def pair(self, index: int) -> tuple[Any, Any]:
        """Input and label of one sample, as the data set gives them: an input, a pair ``(input, label, ...)`` or a mapping.

        Raises:
            DataError: If the sample cannot be read.
        """
        return self._read(index, lambda value: value)

    def read(self, index: int) -> tuple[Tensor, int]:
        """One sample, as a tensor and an integer."""
        tensor, label = self._read(index, self._stored)
        if self._labels is not None:
            return tensor, int(self._labels[index])
        try:
            return tensor, to_label(label)
        except ValueError as error:
            raise DataError(f"The label of sample {index} of {self.kind} cannot be read: {error}.") from error

    def _stored(self, value: Any) -> Tensor:
        return to_tensor(value) if self._form is None else self._form(value)

    def _read(self, index: int, convert: Callable[[Any], Any]) -> tuple[Any, Any]:
        try:
            sample = self.dataset[index]
            if isinstance(sample, Mapping):
                sample = _pair_of_mapping(sample, *self.columns)
            elif not isinstance(sample, tuple | list):
                sample = (sample, None)
            return convert(sample[0]), sample[1] if len(sample) > 1 else None
        except DIETError:
            raise
        except Exception as error:  # any exception may come from a foreign data set
            raise DataError(f"Sample {index} of {self.kind} cannot be read: {error}") from error

    @property
    def has_sizes(self) -> bool:  # type: ignore[override]
        """Whether the samples are images that `image_size` brings to one size."""
        return self.image_size is not None and self._form is not None and self._form.is_image

    def read_batch(
        self, indices: Sequence[int], geometry: Geometry | None = None
    ) -> tuple[Tensor | RaggedImages, Tensor]:
        """Several samples.

        Raises:
            DataError: Also if the length has changed.
        """
        if (length := self._measure()) != self._length:
            raise DataError(
                f"The length of data set {self.kind} changed from {self._length} to {length}: every sample keeps one row "
                "of the head, so the data must not change during a run."
            )
        if not self.has_sizes:
            return super().read_batch(indices)
        images, labels = map(list, zip(*(self[n] for n in indices), strict=True))
        for index, image in zip(indices, images, strict=True):
            if len(image) != len(images[0]):
                raise DataError(
                    f"Sample {index} has {len(image)} channels, but sample {indices[0]} has {len(images[0])}: convert them "
                    "alike."
                )
        return join_images(images) if geometry is None else geometry.stacked(images), torch.tensor(labels)

    def subset(self, indices: Sequence[int]) -> SampleDataset:
        """The samples at `indices`, in that order."""
        labels = None if self._labels is None else self._labels[torch.as_tensor(indices, dtype=torch.int64)]
        part = MapDataset(Subset(self.dataset, indices), self.image_size)
        return part._with(columns=self.columns, _form=self._form, _labels=labels)

    def with_columns(self, image: str, label: str | None) -> MapDataset:
        """The same samples with the keys of their input and label."""
        return self._with(columns=(image, label))

    def with_labels(self, labels: Tensor) -> MapDataset:
        """The same samples with other labels, int64, shape ``(N,)``."""
        return self._with(_labels=labels)

    def _with(self, **attributes: Any) -> MapDataset:
        made = copy(self)
        vars(made).update(attributes)
        return made

    @property
    def array_dtype(self) -> torch.dtype | None:
        """As for `SampleDataset`; the first sample decides."""
        return self._form_of_first().dtype

    def wide_parts(self) -> Iterator[tuple[int, Tensor]]:
        """As for `SampleDataset`; of up to 65,536 evenly spaced samples if one of 64 has more than 8 bits."""
        if not any(self._probes.values()):
            return
        form = self._form_of_first()
        indices = evenly_spaced(len(self), SCALED_SAMPLES)
        for index in tqdm(indices, "looking for the range of values", leave=False, delay=2):
            values, _ = self._read(index, form.values)
            if values.dtype != torch.uint8:
                yield index, values[None]

    def _form_of_first(self, read: ReadConfig | None = None) -> SampleForm:
        form: SampleForm
        form, _ = self._read(0, lambda value: SampleForm(value, read))
        return form

    @cached_property
    def _probes(self) -> dict[int, bool]:
        """Index → whether the sample is an image of more than 8 bits."""
        form = self._form_of_first()
        return {n: form.is_wide(self._read(n, form.values)[0]) for n in evenly_spaced(len(self), PROBES)}

    def formatted(self, read: ReadConfig) -> tuple[SampleDataset, list[str]]:
        """As for `SampleDataset`; all samples must be like the first."""
        form = self._form_of_first(read)
        notes, wide = [*form.notes], sum(self._probes.values())
        if form.arrays is None and 0 < wide < len(self._probes):
            notes.append(
                f"{wide} of the {len(self._probes)} images looked at have more than 8 bits and are scaled; in the others 255 is "
                "white: store them alike if they are not."
            )
        return self._with(_form=form), notes

    @property
    def labels(self) -> Tensor | None:
        """All labels, if the data set keeps them in one place."""
        return labels_of(self.dataset) if self._labels is None else self._labels

    @property
    def names(self) -> list[str] | None:
        """A name for each sample, if the data set keeps them."""
        return names_of(self.dataset)

    @property
    def nbytes(self) -> None:
        """Not known."""
        return None

    def fingerprint_parts(self) -> list[bytes] | None:
        """What the data set's own ``fingerprint_parts()`` returns, or 16 samples with the digests of all if it has these."""
        own, digests = fingerprint_parts_of(self.dataset), self.sample_digests()
        return own if own is not None or digests is None else [*self.probed_parts(), digests.tobytes()]

    def _sample_digests(self) -> NDArray[np.uint8] | None:
        return digests_of(self.dataset, range(len(self)))


class TensorMapDataset(MapDataset):
    """A `TensorDataset` of inputs and, if there are several tensors, labels."""

    @property
    def array_dtype(self) -> torch.dtype | None:
        """As for `SampleDataset`."""
        return super().array_dtype if self._arrays is None else self._arrays.array_dtype

    def wide_parts(self) -> Iterator[tuple[int, Tensor]]:
        """As for `SampleDataset`."""
        return super().wide_parts() if self._arrays is None else self._arrays.wide_parts()

    def formatted(self, read: ReadConfig) -> tuple[SampleDataset, list[str]]:
        """As arrays, unless the second tensor holds something other than labels."""
        return super().formatted(read) if self._arrays is None else self._arrays.formatted(read)

    @property
    def _arrays(self) -> ArrayDataset | None:
        labels, tensors = self.labels, self.dataset.tensors
        return None if labels is None and len(tensors) > 1 else ArrayDataset(tensors[0], labels, self)


def _pair_of_mapping(sample: Mapping[str, Any], image: str | None, label: str | None) -> tuple[Any, Any]:
    key = next((name for name in INPUT_KEYS if name in sample), None) if image is None else image
    if key is None:
        raise KeyError(
            f"none of the keys {list(INPUT_KEYS)} is among {sorted(sample)}: set `read.image_column` to the key of the input"
        )
    label = next((name for name in LABEL_KEYS if name in sample), None) if label is None else label
    for name in (key, label):
        if name is not None and name not in sample:
            raise KeyError(f"{name!r} is not among the keys {sorted(sample)}")
    return sample[key], None if label is None else sample[label]
