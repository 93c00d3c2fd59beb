"""SplitReader: sizes, labels, names and batches of opened data, without a Trainer's loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from diet_lightning.data.batch import DatumBatch, has_labels
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.source import SourceOptions
from diet_lightning.data.summary import DataSummary
from diet_lightning.errors import CheckpointError, ConfigurationError, DataError
from diet_lightning.transforms.pipeline import InputPipeline
from diet_lightning.transforms.ragged import RaggedImages

Split = Literal["train", "val", "test"]


def check_split(argument: str, value: str) -> None:
    """Checks the name of a split.

    Args:
        argument: Name of the argument.
        value: Its value.

    Raises:
        ConfigurationError: If it is not ``"train"``, ``"val"`` or ``"test"``.
    """
    if value not in get_args(Split):
        raise ConfigurationError(
            f"Expected argument `{argument}` to be one of {list(get_args(Split))}, but got {value!r}."
        )


class SplitReader(ABC):
    """The part of `DIETDataModule` that reads: sizes, labels, names and batches of the splits that `setup` opens."""

    source: str
    seed: int
    batch_size: int
    mean: list[float] | None  # as it was given
    trainer: Any
    read: ReadConfig  # with the range of values that `setup` finds
    notes: list[str]  # sentences on what the data mean and on what was left out
    _splits: dict[str, IndexedDataset]  # empty before `setup`
    _class_names: Sequence[str] | None
    _num_classes: int | None
    _fingerprint: str  # of the training samples and their order
    _pipeline: InputPipeline
    _options: SourceOptions

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Opens the data, once."""

    @abstractmethod
    def _ranks(self) -> tuple[int, int]:
        """Number of ranks, and this rank."""

    @abstractmethod
    def _evaluation_loader(self, split: Split, whole: bool = False) -> DataLoader[DatumBatch]:
        """A split in order; images as evaluation sees them, or whole."""

    @property
    def num_samples(self) -> int:
        """N: the number of training samples, DIET's classes. Reads the data on first use."""
        self.setup()
        return len(self._splits["train"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of the network, ``(C, H, W)`` for images. Reads the data on first use."""
        self.setup()
        return self._pipeline.input_shape

    @property
    def num_classes(self) -> int | None:
        """Number of the user's classes, None without labels."""
        self.setup()
        return self._num_classes

    @property
    def train_labels(self) -> Tensor | None:
        """The user's labels of the training samples, int64 ``(N,)``, -1 for samples without one; None if they are not listed."""
        self.setup()
        return self._splits["train"].dataset.labels

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the user's classes; None if the source has none."""
        self.setup()
        return self._class_names

    def summary(self) -> DataSummary:
        """What was read: samples, classes, sizes, values and all that was decided. Reads the data on first use."""
        self.setup()
        return DataSummary.of(self.source, self._splits, self._class_names, self.read, self._pipeline, self.notes)

    def has_labels(self, split: Split) -> bool | None:
        """Whether a sample of a split has a label.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            None if the data lack the split, or do not list its labels.
        """
        self.setup()
        return has_labels(self._splits[split].dataset.labels) if split in self._splits else None

    def names(self, split: Split) -> list[str] | None:
        """A name for each sample of a split, in the order of the index.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Paths of the files below the source's folder, with ``/`` between folders, or the ``names`` of a data set; None
            for samples without names.

        Raises:
            DataError: If the data lack the split.
        """
        return self._split(split).dataset.names

    def identity(self, split: Split) -> dict[str, Any]:
        """Identifies the unaugmented inputs of the network for a split, by plain values that can be compared.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Name, N and fingerprint of the split, the shape of the inputs, and the normalisation of images.

        Raises:
            DataError: If the data lack the split.
        """
        return {
            "split": split,
            "num_samples": len(self._split(split)),
            "fingerprint": self._split(split).dataset.content_key(),
            "input_shape": list(self.input_shape),
            "mean": list(self._pipeline.mean),
            "std": list(self._pipeline.std),
        }

    def _split(self, split: str) -> IndexedDataset:
        self.setup()
        if split not in self._splits:
            raise DataError(
                f"Source {self.source!r} has no {split} split: it has {sorted(self._splits)}; add one, or choose another."
            )
        return self._splits[split]

    def raw_batches(self, split: Split, whole: bool = True) -> Iterator[DatumBatch]:
        """The stored samples of a split, in order, without a Trainer's loop; of several processes each gets its share.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            whole: Whole images, of which random crops can be taken; False for what evaluation sees of them.

        Yields:
            Batches on the CPU; images are uint8, and `RaggedImages` if whole images have several sizes. No batch if the data
            lack the split.
        """
        check_split("split", split)
        self.setup()
        if split in self._splits:
            for batch in self._evaluation_loader(split, whole):
                yield batch if whole else batch._replace(input=self._pipeline.fitted(batch.input))

    def eval_batches(self, split: Split) -> Iterator[DatumBatch]:
        """`raw_batches` as inputs of the network: normalised, not augmented.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Yields:
            Batches on the CPU; no batch if the data lack the split.
        """
        for batch in self.raw_batches(split, whole=False):
            yield batch._replace(input=self.network_inputs(batch.input))

    def raw_samples(self, split: Split, indices: Sequence[int]) -> DatumBatch:
        """Some stored samples of a split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            indices: Indices of the samples in the split.

        Returns:
            The samples; images are uint8 and whole.

        Raises:
            DataError: If the data lack the split, or an index is out of range.
        """
        return self._split(split).__getitems__(indices)

    def network_inputs(self, stored: Tensor | RaggedImages, draw: int | None = None) -> Tensor:
        """Converts stored inputs to inputs of the network, on their device.

        Args:
            stored: Shape ``(B, ...)``.
            draw: None for clean inputs; else they are augmented as in training, with this draw of the parameters.

        Returns:
            Floats, shape ``(B, *input_shape)``.
        """
        self.setup()
        if draw is None:
            return self._pipeline.plain(stored)
        return self._pipeline.augmented(stored, (self.seed, draw), 1, 0)

    def state_dict(self) -> dict[str, Any]:
        """N, source and fingerprint of the training data and their order, and how images are scaled and normalised."""
        self.setup()
        return {
            "num_samples": self.num_samples,
            "fingerprint": self._fingerprint,
            "source": self.source,
            "mean": self._pipeline.mean,
            "std": self._pipeline.std,
            "value_range": None if self.read.value_range is None else list(self.read.value_range),
            "background": self.read.background,
            "fit": self.read.fit,
            "color": self.read.color,
            "batch_size": self.batch_size * self._ranks()[0],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores scaling and normalisation; warns of other training samples where training does not resume.

        Raises:
            CheckpointError: If N, the samples or the batch size differ: every row of the head belongs to one sample, and
                places in an epoch are counted in batches.
        """
        self.setup()
        before: dict[str, Any] = {}
        scaled, color = state_dict.get("value_range"), state_dict.get("color", self.read.color)
        if scaled is not None and self._options.read.value_range is None and scaled != self.read.value_range:
            before["value_range"] = scaled
        if self._options.read.color == "auto" and color != self.read.color:
            before["color"] = "gray" if color == "auto" else color  # as many channels as the network reads
        if before:
            self.read, self._splits = replace(self.read, **before), {}
            self.setup()
        if self.mean is None and len(state_dict.get("mean", [])) == len(self._pipeline.mean):
            # images in memory or in a cache have their own statistics, images decoded on the fly have ImageNet's
            self._pipeline.normalize_by(state_dict["mean"], state_dict["std"])
        if self.trainer is None:
            return
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.require_same_data(state_dict)
            self._require_same_batches(state_dict)
        elif state_dict["fingerprint"] != self._fingerprint and state_dict["source"] == self.source != "from_datasets":
            rank_zero_warn(
                f"The training samples of source {self.source!r} are not those of the checkpoint: some were replaced, added, "
                "removed or moved. What is computed is of the present samples."
            )

    def _require_same_batches(self, state_dict: Mapping[str, Any]) -> None:
        before, world = state_dict["batch_size"], self._ranks()[0]
        if before != self.batch_size * world:
            raise CheckpointError(
                f"The checkpoint was trained with batches of {before} samples, but batch_size={self.batch_size} on {world} "
                f"device(s) makes {self.batch_size * world}: the place in the epoch and the learning rate are counted in steps. "
                f"Set `batch_size` to {before // world}, or start a new run."
            )

    def require_same_data(self, state_dict: Mapping[str, Any]) -> None:
        """Compares the training data with those that a checkpoint was trained on.

        Args:
            state_dict: State of the data module in the checkpoint.

        Raises:
            CheckpointError: If N or the samples differ: every row of the head belongs to one sample.
        """
        if state_dict["num_samples"] != self.num_samples:
            raise CheckpointError(
                f"The checkpoint was trained on {state_dict['num_samples']} samples, but source {self.source!r} has "
                f"{self.num_samples}: use the same data, or start a new run without `ckpt_path`."
            )
        if state_dict["fingerprint"] != self._fingerprint:
            raise CheckpointError(
                f"The checkpoint was trained on other data of the same length (N={self.num_samples}), or on the same in "
                f"another order or read with other options (`read`, `image_size`), than source {self.source!r} holds: use the "
                "same data and options, or start a new run without `ckpt_path`."
            )
