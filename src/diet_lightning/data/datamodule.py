"""DIETDataModule: any data set, with sample indices as targets and the augmentation on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader, Dataset

from diet_lightning.data.adapters import adapt
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.batch import DatumBatch
from diet_lightning.data.cache import ImageCache
from diet_lightning.data.carried_labels import resolve_labels
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import ResumableLoader, SplitLoaders, samples_in_all_stores, to_device_if_fits
from diet_lightning.data.read_config import READ, ReadConfig
from diet_lightning.data.reading import Split, SplitReader, check_split
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.sources import load_source, needs_download
from diet_lightning.data.splits import check_shapes, fill_cache, open_splits, unlabelled_note
from diet_lightning.data.statistics import channel_statistics
from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms.augmentation import BatchAugmentation
from diet_lightning.transforms.pipeline import Augment, InputPipeline

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class DIETDataModule(SplitReader, LightningDataModule):
    """Data for DIET: every sample comes with its index in the training set (DIET, Algorithm 2).

    Batches are `DatumBatch(input, index, label)`. Training images are augmented on the batch's device, each with its
    own parameters, from a generator seeded by (seed, epoch, step): the same whatever the number of workers and ranks.
    Labels are passed on for probes only. If one of the validation and test splits is missing, the other replaces it.

    Args:
        source: The data: digits (embedded); torchvision:NAME; folder:PATH (split folders, class folders, unlabelled images,
            or archives of TinyImageNet or CUB-200-2011 as they unpack); csv:FILE (paths, labels, splits); npz:FILE
            (MedMNIST's keys); hf:NAME or hf:parquet:PATH (Hugging Face).
        root: Folder of torchvision's and Hugging Face's data; None for ``data`` and Hugging Face's cache.
        batch_size: Samples per step and device.
        strength: Augmentation 0 (none) to 3 (the paper's default).
        augmentation: Arguments of `BatchAugmentation` that replace the source's own and the paper's, such as
            ``{"crop_scale": [0.2, 1], "flip": 0}``; or a function that replaces it. The function takes a training batch on
            its device (uint8 images as evaluation sees them, as floats in [0, 1]; other inputs unchanged) and a generator
            on that device, and returns the augmented batch.
        image_size: Side of the square images that the network sees, in pixels; None keeps the data's own size.
        mean: Mean of each channel on a scale of 0 to 1; None computes it for uint8 images in memory and takes ImageNet's
            for images decoded on the fly.
        std: Standard deviation of each channel, as `mean`.
        holdout: Fraction of labelled images that is held out for validation where a folder or table has no splits.
        subset: Train on this many samples, drawn by `seed`; None for all.
        read: What files, arrays and tables mean: folders, channels, colors, columns; see `ReadConfig`.
        predict_split: The split that `predict` reads, unaugmented and in order.
        in_memory: Keep decoded images in memory; None keeps them if they take at most 1 GiB.
        cache: Folder of decoded images, mapped into memory, for later runs and for data larger than the memory; decoding
            resumes after an interruption. None for no cache.
        on_device: Keep training data on the accelerator; None does if they take at most a quarter of its free memory.
        drop_unreadable: Check every image before the run and leave out, with a warning, those that cannot be read.
        download: Let torchvision download what is missing.
        num_workers: Loader processes; None for 0 with data in memory, and up to 8 for images decoded on the fly or mapped
            from a cache that is larger than the memory.
        seed: Seed of the order, the augmentation, the hold-out and the subset.

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
        read: ReadConfig = READ,
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
        check_split("predict_split", predict_split)
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
        self.read = read  # with the range of values that `setup` finds
        self.predict_split = predict_split
        self.keep_in_memory = in_memory
        self.cache = cache
        self.on_device = on_device
        self.drop_unreadable = drop_unreadable
        self.num_workers = num_workers
        self.seed = seed
        self._options = SourceOptions(root, image_size, holdout, download, seed, read)
        self._given: Source | None = None  # data sets passed by `from_datasets`
        self._splits: dict[str, IndexedDataset] = {}  # filled by `setup`
        self._class_names: Sequence[str] | None = None
        self._num_classes: int | None = None
        self._fingerprint, self.notes = "", []
        self._told = False  # whether this fit has logged what was read
        self._stage = ""  # the stage that Lightning has set up last
        self._placed: ArrayDataset | None = None  # the training set on the device that trains

    @classmethod
    def from_datasets(  # type: ignore[override]
        cls,
        train: Dataset[Any],
        val: Dataset[Any] | None = None,
        test: Dataset[Any] | None = None,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> DIETDataModule:
        """Makes a data module from custom map-style data sets, of images or other inputs.

        Args:
            train: Training samples, in a form that `IndexedDataset` takes.
            val: Labelled samples for online probes, or None.
            test: Labelled samples for `test`, or None.
            class_names: Names of the labels, or None.
            **options: Arguments of `DIETDataModule` other than `source`.

        Returns:
            The data module.
        """
        module = cls(**options)
        module.source = "from_datasets"
        size = module.image_size
        val, test = (None if split is None else adapt(split, size) for split in (val, test))
        module._given = Source(adapt(train, size), val, test, class_names)
        return module

    def prepare_data(self) -> None:
        """Downloads what is missing and decodes images into the cache; Lightning calls it once per node, before `setup`.

        Raises:
            DataError: If the data cannot be downloaded or read, or the disk is full.
            ConfigurationError: If an argument does not suit the data.
        """
        downloads = self._given is None and needs_download(self.source, self._options)
        if self._splits or not (downloads or self.cache):
            return
        source = self._open_source()
        if self.cache is not None:
            fill_cache(source, self.read, ImageCache(self.cache, self.source), self.drop_unreadable)

    def setup(self, stage: str | None = None) -> None:
        """Opens all splits of the source, once.

        Without a call of `prepare_data` it also downloads and decodes missing data, in one process at a time.

        Args:
            stage: Lightning's stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            DataError: If the data cannot give every sample a class of its own.
            ConfigurationError: If an argument does not suit the data.
        """
        self._stage = stage or self._stage
        if not self._splits:
            self._open()
        if stage == "fit" and self.trainer is not None:
            self._told = False
            # N is known now, and callbacks, whose `setup` comes next, may copy or freeze the network there
            self.trainer.lightning_module.configure_model()

    def _open(self) -> None:
        source = self._open_source()
        kept = (self.keep_in_memory, self.cache, self.drop_unreadable)
        opened = open_splits(source, self.source, self.read, self.subset, self.seed, *kept)
        check_shapes(opened.indexed, self.image_size)
        train = opened.indexed["train"]
        sample = train[0].input
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = channel_statistics(train.dataset, sample)
        augmentation = self.augmentation
        if not callable(augmentation):
            augmentation = {**source.augmentation, **augmentation}
        options = (self.image_size, self.strength, augmentation, mean, std, self.read.fit)
        self._pipeline = InputPipeline(sample, *options)
        self._class_names, self._num_classes = source.class_names, opened.num_classes
        self.read, self.notes = opened.read, [*opened.notes, *unlabelled_note(opened)]
        self._splits, self._fingerprint = opened.indexed, opened.fingerprint

    def _open_source(self) -> Source:
        if self._given is not None:
            return resolve_labels(self._given, self._options.read)
        return load_source(self.source, self._options)

    def teardown(self, stage: str) -> None:
        """Frees the accelerator memory of the training set."""
        self._placed = None

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled by (seed, epoch); a resumed run continues where it stopped, also within an epoch."""
        if self.trainer is not None and not self._told:  # the values of a checkpoint are restored by now
            self._told = True
            if self.trainer.is_global_zero:
                rank_zero_info("\n".join(self.summary().lines()))
        dataset, loaders = self._split("train"), self._loaders()
        arrays = loaders.arrays_of(dataset)
        if arrays is not None:
            device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
            if self._placed is None or self._placed.inputs.device.type != device.type:
                self._placed = to_device_if_fits(arrays, device, self.on_device, self._training_memory())
            arrays = self._placed if self._placed.inputs.device.type == device.type else None
        geometry = self._pipeline.training_geometry(*self._ranks())
        return loaders.for_training(dataset, self.seed, self._samples_seen, arrays, geometry)

    @property
    def val_dataloader(self) -> Callable[[], DataLoader[DatumBatch]]:
        """Makes the loader of the validation split: in order, unaugmented."""
        if self._stage == "fit" and "val" not in self._splits:
            # Lightning's own hook here tells it to skip validation; it would warn of an empty list
            return super().val_dataloader
        return partial(self._evaluation_loader, "val")

    def test_dataloader(self) -> DataLoader[DatumBatch]:
        """In order, unaugmented."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[DatumBatch]:
        """The split `predict_split`, in order, unaugmented, without the batches that every `PredictionStore` has already."""
        dataset = self._split(self.predict_split)
        done = samples_in_all_stores(self.trainer, len(dataset))
        return self._loaders().without(dataset, done, self._pipeline.fit)

    def _evaluation_loader(self, split: Split, whole: bool = False) -> DataLoader[DatumBatch]:
        return self._loaders().in_order(self._split(split), None if whole else self._pipeline.fit)

    def _loaders(self) -> SplitLoaders:
        return SplitLoaders(self.batch_size, self.num_workers, *self._ranks())

    def _training_memory(self) -> int:
        """Bytes of gradients and moments, which are allocated after the data are placed."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return 0 if module is None else 3 * sum(p.nbytes for p in module.parameters())

    def _samples_seen(self) -> int:
        """Samples of the current epoch that were trained on before its first batch is read; 0 unless a run resumes."""
        return self._batches_seen() * self.batch_size

    def _batches_seen(self) -> int:
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _ranks(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def on_after_batch_transfer(self, batch: DatumBatch, dataloader_idx: int) -> DatumBatch:
        """Turns a batch into the network's inputs: augmented while training, only normalised otherwise."""
        if self.trainer is not None and self.trainer.training:
            position = (self.seed, self.trainer.current_epoch, self._batches_seen())
            cropped = self._splits["train"].dataset.has_sizes
            inputs = self._pipeline.augmented(batch.input, position, *self._ranks(), cropped)
        else:
            inputs = self._pipeline.plain(batch.input)
        if inputs.is_floating_point() and self.trainer is not None:
            dtype: Any = self.trainer.lightning_module.dtype
            if self._pipeline.is_image:  # the dtype to which the first convolution would cast it
                dtype = AUTOCAST.get(str(self.trainer.precision), dtype)
            inputs = inputs.to(dtype)
        return batch._replace(input=inputs)
