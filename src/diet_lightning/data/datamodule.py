"""DIETDataModule: any data set, with sample indices as targets and the augmentation on the device."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diet_lightning.data.adapters import adapt
from diet_lightning.data.batch import DatumBatch
from diet_lightning.data.dataset import ArrayDataset
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.sampling import (
    BlockSampler,
    EpochSampler,
    MemoryLoader,
    ResumableLoader,
    identity_collate,
    to_device_if_fits,
)
from diet_lightning.data.sources import Source, SourceOptions, load_source
from diet_lightning.data.splits import open_splits
from diet_lightning.data.statistics import channel_statistics
from diet_lightning.errors import CheckpointError, ConfigurationError, DataError
from diet_lightning.transforms.augmentation import BatchAugmentation
from diet_lightning.transforms.pipeline import Augment, InputPipeline
from diet_lightning.utilities.device_memory import available_memory

Split = Literal["train", "val", "test"]
STREAMING_WORKERS = 8
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class DIETDataModule(LightningDataModule):
    """Data for DIET: every sample comes with its index in the training set (DIET, Algorithm 2).

    Batches are `DatumBatch(input, index, label)`. Training images are augmented on the batch's device, each with its
    own parameters, from a generator seeded by (seed, epoch, step): the same whatever the number of workers and ranks.
    Labels are only passed through for probes. Where there is no validation split the test split takes its place, as in
    the paper, and the other way round.

    Sources: ``digits`` (scikit-learn's, embedded); ``torchvision:NAME``; ``folder:PATH`` (train/val[/test] folders of
    class folders, one tree of class folders, a flat unlabelled folder, or TinyImageNet or CUB-200-2011 as their archives
    unpack); ``npz:FILE`` (MedMNIST's keys); ``hf:NAME`` and ``hf:parquet:PATH`` (Hugging Face).

    Args:
        source: What to train on: digits, torchvision:NAME, folder:PATH, npz:FILE, hf:NAME or hf:parquet:PATH.
        root: Where torchvision's and Hugging Face's data are kept; None for ``data`` and their own cache.
        batch_size: Samples per step and device.
        strength: Augmentation 0 (none) to 3 (the paper's default).
        augmentation: Arguments of `BatchAugmentation` that replace the source's own and the paper's, such as
            ``{"crop_scale": [0.2, 1], "flip": 0}``; or a function in place of it, of a training batch on its device
            (uint8 images as floats in [0, 1], anything else unchanged) and of a generator on that device, that returns
            the augmented batch.
        image_size: Side of the square images that the network sees, in pixels; None keeps the data's own size.
        mean: Mean of each channel on a scale of 0 to 1; None computes it for uint8 images in memory and takes ImageNet's
            for images decoded on the fly.
        std: Standard deviation of each channel, as `mean`.
        holdout: Share of one tree of class folders that is held out for validation.
        subset: Train on this many samples, drawn by `seed`; None for all.
        predict_split: The split that `predict` reads, unaugmented and in order.
        in_memory: Keep decoded images in memory; None does if they take at most 1 GiB.
        cache: Folder that keeps decoded images as bytes, mapped into memory, for the next run and for sets that are larger
            than the memory; decoding resumes where it was interrupted. None for none.
        on_device: Keep a training set that is in memory on the accelerator; None does if it takes at most a quarter of what
            is left there.
        drop_unreadable: Check every image before the run and leave out, with a warning, those that cannot be read.
        download: Let torchvision download what is missing.
        num_workers: Loader processes; None for 0 in memory and up to 8 for images decoded on the fly or mapped from a
            cache that is larger than the memory.
        seed: Seed of order, augmentation, hold-out and subset.

    Raises:
        ConfigurationError: For an argument outside its range.
        DataError: On `setup`, if the data cannot give every sample a class of its own.

    Example:
        >>> data = DIETDataModule("digits", batch_size=128)
        >>> data.num_samples, data.input_shape, data.num_classes
        (1347, (1, 8, 8), 10)
    """

    def __init__(
        self,
        source: str = "digits",
        root: str | None = None,
        batch_size: int = 256,
        strength: int = 3,
        augmentation: dict[str, Any] | Augment | None = None,
        image_size: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        holdout: float = 0.1,
        subset: int | None = None,
        predict_split: Split = "train",
        in_memory: bool | None = None,
        cache: str | None = None,
        on_device: bool | None = None,
        drop_unreadable: bool = False,
        download: bool = False,
        num_workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in {"batch_size": batch_size, "image_size": image_size, "subset": subset}.items():
            if value is not None and value < 1:
                raise ConfigurationError(f"Expected argument `{name}` to be at least 1, but got {value}.")
        if not 0.0 <= holdout < 1.0:
            raise ConfigurationError(f"Expected argument `holdout` to be in [0, 1), but got {holdout}.")
        if seed < 0:
            raise ConfigurationError(f"Expected argument `seed` to be at least 0, but got {seed}.")
        if predict_split not in get_args(Split):
            raise ConfigurationError(
                f"Expected argument `predict_split` to be one of {list(get_args(Split))}, but got {predict_split!r}."
            )
        if (mean is None) != (std is None):
            raise ConfigurationError(f"Expected both `mean` and `std` or neither, but got mean={mean}, std={std}.")
        BatchAugmentation(strength)  # refuses an unknown strength before any data are read
        self.source = source
        self.batch_size = batch_size
        self.strength = strength
        self.augmentation = augmentation or {}
        self.image_size = image_size
        self.mean, self.std = mean, std
        self.subset = subset
        self.predict_split = predict_split
        self.keep_in_memory = in_memory
        self.cache = cache
        self.on_device = on_device
        self.drop_unreadable = drop_unreadable
        self.num_workers = num_workers
        self.seed = seed
        self._options = SourceOptions(root, image_size, holdout, download, seed)
        self._given: Source | None = None  # data sets passed by `from_datasets`
        self._splits: dict[str, IndexedDataset] = {}  # filled by `setup`
        self._class_names: Sequence[str] | None = None
        self._num_classes: int | None = None
        self._fingerprint = ""
        # each says, given N, which samples of `predict_split` the loader of `predict` may leave out, shape (N,)
        self.predict_skips: list[Callable[[int], NDArray[np.bool_]]] = []
        self._placed: ArrayDataset | None = None  # the training set on the device that trains
        self._pipeline: InputPipeline

    @classmethod
    def from_datasets(  # type: ignore[override]
        cls,
        train: Dataset[Any],
        val: Dataset[Any] | None = None,
        test: Dataset[Any] | None = None,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> DIETDataModule:
        """A data module over your own map-style data sets, of images or not.

        Args:
            train: What DIET trains on; samples as `IndexedDataset` takes them.
            val: Labelled samples for online probes, or None.
            test: Labelled samples for `test`, or None.
            class_names: Names of the labels, or None.
            **options: Arguments of `DIETDataModule` other than `source`.

        Returns:
            The data module.
        """
        module = cls(**options)
        module.source = "from_datasets"
        module._given = Source(
            adapt(train), None if val is None else adapt(val), None if test is None else adapt(test), class_names
        )
        return module

    # -- what the model reads ------------------------------------------------------------------------------------------

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
        """The user's labels of the training samples, int64 ``(N,)``, -1 where there is none; None where they are not listed."""
        self.setup()
        return self._splits["train"].dataset.labels

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the user's classes, where the source has them."""
        self.setup()
        return self._class_names

    def names(self, split: Split) -> list[str] | None:
        """A name for each sample of a split, in the order of the index.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Paths of the files below the source's folder, with ``/`` between folders, or what a data set offers as ``names``;
            None where the samples have none.

        Raises:
            DataError: If there is no such split.
        """
        return self._split(split).dataset.names

    def identity(self, split: Split) -> dict[str, Any]:
        """What the inputs of the network are for a split, unaugmented, as plain values that compare.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Name, N and fingerprint of the split, the shape of the inputs, and how images are normalised.

        Raises:
            DataError: If there is no such split.
        """
        return {
            "split": split,
            "num_samples": len(self._split(split)),
            "fingerprint": self._split(split).dataset.content_key(),
            "input_shape": list(self.input_shape),
            "mean": list(self._pipeline.mean),
            "std": list(self._pipeline.std),
        }

    # -- set-up --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Opens the source, all splits together, once.

        Args:
            stage: Lightning's name of what is to run.

        Raises:
            DataError: If the data cannot give every sample a class of its own.
            ConfigurationError: If an argument does not suit the data.
        """
        if not self._splits:
            self._open()
        if stage == "fit" and "val" not in self._splits:
            # puts LightningDataModule's own hook back, which tells Lightning that there is nothing to validate on
            self.val_dataloader = super().val_dataloader  # type: ignore[method-assign]

    def _open(self) -> None:
        source = self._given if self._given is not None else load_source(self.source, self._options)
        opened = open_splits(
            source, self.source, self.subset, self.seed, self.keep_in_memory, self.cache, self.drop_unreadable
        )
        train = opened.indexed["train"]
        sample = train[0].input
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = channel_statistics(train.dataset, sample)
        augmentation = self.augmentation
        if not callable(augmentation):
            augmentation = {**source.augmentation, **augmentation}
        self._pipeline = InputPipeline(sample, self.image_size, self.strength, augmentation, mean, std)
        self._class_names, self._num_classes = source.class_names, opened.count_classes(source.class_names)
        self._fingerprint = opened.fingerprint
        self._splits = opened.indexed

    # -- loaders -------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled by (seed, epoch); a resumed run continues where it stopped, also within an epoch."""
        self.setup()
        dataset = self._splits["train"]
        sampler = EpochSampler(dataset, self.batch_size, *self._ranks(), shuffle=True, seed=self.seed)
        if self.batch_size > len(sampler):
            raise ConfigurationError(
                f"batch_size={self.batch_size} is larger than the {len(sampler)} training samples of a device: set "
                f"`batch_size` to at most {len(sampler)}."
            )
        sampler.position = self._samples_seen
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if (arrays := dataset.dataset.arrays) is not None and self._workers(dataset) == 0:
            if self._placed is None or self._placed.inputs.device.type != device.type:
                self._placed = to_device_if_fits(arrays, device, self.on_device, self._training_memory())
            if self._placed.inputs.device.type == device.type:
                return MemoryLoader(self._placed, dataset, batch_size=self.batch_size, sampler=sampler)
        return ResumableLoader(dataset, batch_size=self.batch_size, sampler=sampler, **self._loader_options(dataset))

    def val_dataloader(self) -> DataLoader[DatumBatch]:
        """In order, unaugmented."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[DatumBatch]:
        """In order, unaugmented."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[DatumBatch]:
        """The split `predict_split`, in order, unaugmented, without whole batches that `predict_skips` leave out."""
        dataset = self._split(self.predict_split)
        count = len(dataset)
        skipped = [skip(count) for skip in self.predict_skips] or [np.zeros(count, np.bool_)]
        blocks = np.unique(np.flatnonzero(~np.logical_and.reduce(skipped)) // self.batch_size)
        if len(blocks) == 0:
            blocks = np.zeros(1, np.int64)  # without a batch Lightning would call no hook
        sampler = BlockSampler(dataset, self.batch_size, *self._ranks(), blocks)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=sampler, **self._loader_options(dataset))

    def _split(self, split: str) -> IndexedDataset:
        self.setup()
        if split not in self._splits:
            raise DataError(
                f"Source {self.source!r} has no {split} split: it has {sorted(self._splits)}; add one, or choose another."
            )
        return self._splits[split]

    def _evaluation_loader(self, split: str) -> DataLoader[DatumBatch]:
        dataset = self._split(split)
        sampler = EpochSampler(dataset, self.batch_size, *self._ranks(), shuffle=False)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=sampler, **self._loader_options(dataset))

    def raw_batches(self, split: Split) -> Iterator[DatumBatch]:
        """A split as it is kept, in order, without a Trainer's loop; under several processes this process's share of it.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Yields:
            Batches on the CPU; images are uint8. None where the split does not exist.
        """
        if split not in get_args(Split):
            raise ConfigurationError(
                f"Expected argument `split` to be one of {list(get_args(Split))}, but got {split!r}."
            )
        self.setup()
        if split in self._splits:
            yield from self._evaluation_loader(split)

    def eval_batches(self, split: Split) -> Iterator[DatumBatch]:
        """`raw_batches` as the network reads them: normalised, not augmented.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Yields:
            Batches on the CPU; none where the split does not exist.
        """
        for batch in self.raw_batches(split):
            yield batch._replace(input=self.network_inputs(batch.input))

    def raw_samples(self, split: Split, indices: Sequence[int]) -> DatumBatch:
        """Some samples of a split as they are kept.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            indices: Theirs in the split.

        Returns:
            The samples; images are uint8.

        Raises:
            DataError: If there is no such split or sample.
        """
        return self._split(split).__getitems__(indices)

    def network_inputs(self, stored: Tensor, draw: int | None = None) -> Tensor:
        """Stored inputs as the network reads them, on their device.

        Args:
            stored: Shape ``(B, ...)``.
            draw: None for clean inputs, else augmented as in training, by this draw of the augmentation's parameters.

        Returns:
            Floats, shape ``(B, *input_shape)``.
        """
        self.setup()
        if draw is None:
            return self._pipeline.plain(stored)
        return self._pipeline.augmented(stored, (self.seed, draw), 1, 0)

    def _training_memory(self) -> int:
        """Bytes of gradients and moments, which are made when the data have their place already."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return 0 if module is None else 3 * sum(p.nbytes for p in module.parameters())

    def teardown(self, stage: str) -> None:
        """Frees what the training set took of an accelerator."""
        self._placed = None

    def _samples_seen(self) -> int:
        """Samples of the current epoch that were trained on before its first batch is read: not 0 on resuming only."""
        return 0 if self.trainer is None else self._batches_seen(self.trainer) * self.batch_size

    @staticmethod
    def _batches_seen(trainer: Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _ranks(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _workers(self, dataset: IndexedDataset) -> int:
        if self.num_workers is not None:
            return self.num_workers
        memory = available_memory(torch.device("cpu")) or math.inf
        return min(STREAMING_WORKERS, os.cpu_count() or 1) if dataset.dataset.needs_workers(memory) else 0

    def _loader_options(self, dataset: IndexedDataset) -> dict[str, Any]:
        workers = self._workers(dataset)
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "collate_fn": identity_collate,
        }

    # -- on the device -------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: DatumBatch, dataloader_idx: int) -> DatumBatch:
        """Turns a batch into the network's inputs: augmented while training, only normalised otherwise."""
        if self.trainer is not None and self.trainer.training:
            position = (self.seed, self.trainer.current_epoch, self._batches_seen(self.trainer))
            inputs = self._pipeline.augmented(batch.input, position, *self._ranks())
        else:
            inputs = self._pipeline.plain(batch.input)
        if inputs.is_floating_point() and self.trainer is not None:
            dtype: Any = self.trainer.lightning_module.dtype
            if self._pipeline.is_image:  # what the first convolution would cast it to
                dtype = AUTOCAST.get(str(self.trainer.precision), dtype)
            inputs = inputs.to(dtype)
        return batch._replace(input=inputs)

    # -- what a checkpoint keeps ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """N, the fingerprint of the training data's order, and how the network's images were normalised."""
        self.setup()
        normalization = {"mean": self._pipeline.mean, "std": self._pipeline.std}
        return {"num_samples": self.num_samples, "fingerprint": self._fingerprint, **normalization}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Normalises as the checkpoint's network learnt it, and compares the data when training is resumed.

        Raises:
            CheckpointError: If N or the samples differ: every row of the head belongs to one sample.
        """
        self.setup()
        if self.mean is None and len(state_dict.get("mean", [])) == len(self._pipeline.mean):
            # the same images have other statistics in memory or a cache, their own, than decoded on the fly, ImageNet's
            self._pipeline.normalize_by(state_dict["mean"], state_dict["std"])
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.require_same_data(state_dict)

    def require_same_data(self, state_dict: Mapping[str, Any]) -> None:
        """Compares the training data with those that a checkpoint was trained on.

        Args:
            state_dict: What the checkpoint keeps of them.

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
                f"another order, than source {self.source!r} holds: use the same data, or start a new run "
                "without `ckpt_path`."
            )
