"""DIETModule: the training step of DIET with the paper's recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from diet_lightning.backbones.architectures import Stem
from diet_lightning.backbones.factory import Backbone, create_backbone
from diet_lightning.backbones.initial_weights import load_initial_weights
from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import ConfigurationError, require
from diet_lightning.objective import HeadConfig
from diet_lightning.objective.loss import check_label_smoothing
from diet_lightning.training.checkpointed import WEIGHT, CheckpointedModule
from diet_lightning.training.optimizer import (
    count_steps,
    make_optimizer,
    match_layout,
    total_batch,
    warmup_cosine,
    warmup_steps,
)
from diet_lightning.training.trainer_checks import check_callbacks, check_head, check_memory
from diet_lightning.utilities.seeding import derive_seed

DENSE = HeadConfig()


class DIETModule(CheckpointedModule):
    """Self-supervised learning with the datum index as target (DIET, Algorithm 1).

    Every training sample is its own class: a backbone, a bias-free linear classifier with one row per sample, and
    label-smoothed cross-entropy. Ibrahim, Klindt and Balestriero, *Occam's Razor for Self Supervised Learning*, 2024,
    https://arxiv.org/abs/2406.10743. The defaults are the paper's recipe.

    When the Trainer starts, N and the shape of the inputs are read from the `DIETDataModule` and the network is built. With
    other loaders pass `num_samples` and `input_shape`; then, and in a loaded checkpoint, it is built at once.

    Logs ``train/loss_step`` and, as means over an epoch in nats, ``train/loss`` and ``train/loss_gap``, the loss minus its floor.

    Args:
        backbone: ``"resnet8"``, ``"resnet8_w64"`` (of another width), the name of a torchvision classification model,
            ``"timm/NAME"``, a folder of `diet export`, or in Python a `torch.nn.Module`; see `create_backbone`.
        num_samples: N; None reads it from the data module.
        input_shape: Shape of one input, ``(C, H, W)`` for images; None reads it from the data module.
        label_smoothing: Weight of the uniform distribution in the target, in ``[0, 1)``.
        lr: Learning rate at a total batch of 256; it is scaled by batch × ranks × accumulation / 256.
        weight_decay: Weight decay of AdamW, on all parameters including the head's.
        warmup_epochs: Epochs of linear warm-up, at most a tenth of the run; a cosine follows.
        min_lr: Final learning rate, at a total batch of 256 like `lr`; another `head.lr` decays by the same factor.
        stem: ``"small"`` gives a ResNet the stem for 32×32 images, ``"auto"`` does so up to 64 pixels.
        head: How the N rows of the head are kept and trained, see `HeadConfig`.
        compile: Train the backbone through `torch.compile`.
        channels_last: Use the channels-last memory format for images and convolutions, which is faster.
        weights: Initial weights of the backbone: ``"pretrained"`` for the library's, downloaded once; a ``.safetensors``
            file; a folder of `diet export`; a run of `diet fit`; None for random weights. Use their data's `mean` and `std`.

    Raises:
        ConfigurationError: For an argument outside its range.

    Example:
        >>> module = DIETModule("resnet8", num_samples=100, input_shape=(1, 8, 8))
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 128])
    """

    backbone: Backbone
    # what the classes are: a subclass with other classes also overrides `class_of` and `check_classes`
    target = "index"
    rows_argument: ClassVar[str] = "num_samples"  # argument and data module's attribute that count the classes
    class_noun = "samples"

    def __init__(
        self,
        backbone: str | nn.Module = "resnet18",
        num_samples: int | None = None,
        input_shape: list[int] | None = None,
        label_smoothing: float = 0.8,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_epochs: float = 10,
        min_lr: float = 0.0,
        stem: Stem = "auto",
        head: HeadConfig = DENSE,
        compile: bool = False,
        channels_last: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_label_smoothing(label_smoothing)
        at_least_0 = {"lr": lr, "weight_decay": weight_decay, "warmup_epochs": warmup_epochs, "min_lr": min_lr}
        for name, value in at_least_0.items():
            require(value >= 0.0, name, "at least 0", value)
        require(min_lr <= lr, "min_lr", f"at most lr={lr}", min_lr)
        require(isinstance(head, HeadConfig), "head", "a HeadConfig('fused', …)", head)
        is_module = isinstance(backbone, nn.Module)
        # plain values only, so that a checkpoint loads under weights_only=True
        self.save_hyperparameters(ignore=["head", "backbone"] if is_module else ["head"])
        for name in ("_instantiator", "supervised"):  # the command line's
            self.hparams.pop(name, None)
        self.hparams["head"] = asdict(head)
        self._head_config = head
        self._given = (backbone,)  # in a tuple, so that the module is not registered a second time
        if is_module:
            # registered now, so that `module.to(...)` and optimisers see it; its dimension needs an input
            self._modules["backbone"] = backbone  # type: ignore[assignment]
        rows = self.hparams[self.rows_argument]
        self._given_rows = rows is not None
        if rows is not None and input_shape is not None:
            self._build(rows, input_shape)

    def class_of(self, batch: DatumBatch) -> Tensor:
        """The class of each sample of a batch, int64 ``(B,)``: its index."""
        return batch.index

    def check_classes(self, count: int | None) -> None:
        """Checks the number of classes before training, None where it is not known."""

    def configure_model(self) -> None:
        """Builds backbone and head once N and the shape of the inputs are known; does nothing more on later calls.

        `DIETDataModule.setup` calls it when training starts: this is the first hook in which N is known, and it comes
        before the `setup` of callbacks, some of which copy (`StochasticWeightAveraging`) or freeze the network there.
        `WeightAveraging` calls it in its `setup` itself, and Lightning once more after all of them.

        Raises:
            ConfigurationError: If N or the shape is unknown, or the Trainer cannot train the network.
        """
        argument, noun = self.rows_argument, self.class_noun
        known, found = self.hparams[argument], getattr(self._data, argument, None)
        if self._is_fitting and known is not None and found not in (None, known):
            cure = (
                f"leave `{argument}` out to read it from the data"
                if self._given_rows
                else "make a new module for other data"
            )
            raise ConfigurationError(f"{argument}={known}, but the data module has {found} {noun}: {cure}.")
        count = found if known is None else known
        shape = self.hparams["input_shape"] or getattr(self._data, "input_shape", None)
        if self._data is not None:
            self.check_classes(count)
        if count is None or shape is None:
            raise ConfigurationError(
                f"{type(self).__name__} does not know the number of {noun} and the shape of the inputs: pass a DIETDataModule "
                f"to the Trainer, or set `{argument}` and `input_shape`."
            )
        if self._is_fitting:
            check_head(self._head_config.kind, self.trainer)
        if self.num_samples is None:
            self.hparams["num_samples"] = getattr(self._data, "num_samples", None)
        if not self.is_built:
            self._build(count, shape)

    def _build(self, rows: int, input_shape: Sequence[int]) -> None:
        hparams: Any = self.hparams
        self.check_classes(rows)
        hparams[self.rows_argument], hparams.input_shape = int(rows), [int(size) for size in input_shape]
        self.backbone = self._make_backbone(hparams)
        if self._is_fitting:
            check_memory(self._head_config, int(rows), self.backbone.embed_dim, self.trainer, held=0)
        self.head = self._head_config.make(int(rows), self.backbone.embed_dim, hparams.label_smoothing)

    def _make_backbone(self, hparams: Any) -> Backbone:
        """Makes the backbone, and changes the hyper-parameters such that a checkpoint needs no file of initial weights."""
        given = self._given[0]
        backbone = create_backbone(given, tuple(hparams.input_shape), hparams.stem)
        is_exported = hparams.get("backbone", backbone.name) != backbone.name  # a folder
        if hparams.weights is not None and is_exported:
            raise ConfigurationError(
                f"Expected argument `weights` to be None with backbone={given!r}, an exported folder with weights of its own, "
                f"but got {hparams.weights!r}: name the architecture, {backbone.name!r}, as `backbone`."
            )
        if hparams.weights is not None:
            load_initial_weights(backbone, hparams.weights)
        hparams.weights = None
        if is_exported:
            hparams.backbone, hparams.stem = backbone.name, backbone.stem
        backbone.lay_out(hparams.channels_last)
        return backbone

    @property
    def embed_dim(self) -> int:
        """K, the dimension of the embeddings; raises `ConfigurationError` if the network is not built yet."""
        self._require_network()
        return self.backbone.embed_dim

    @property
    def num_samples(self) -> int | None:
        """N, or None while it is not known."""
        return self.hparams["num_samples"]  # type: ignore[no-any-return]

    def _require_network(self) -> None:
        if not self.is_built:
            raise ConfigurationError(
                "The network is not built yet, since N and the shape of the inputs are not known: fit with a DIETDataModule, "
                "or give `num_samples` and `input_shape`."
            )

    def setup(self, stage: str) -> None:
        """Builds the network if it is not built yet, and prepares it for the Trainer's devices.

        Raises:
            ConfigurationError: As `configure_model`; also for an unsupported callback, and if the memory does not suffice.
        """
        was_built = self.is_built
        self.configure_model()
        if self._is_fitting:
            check_callbacks(self.trainer, self._head_config.kind, was_built)
            rows, held = self.head.num_samples, self.head.weight.nbytes
            rank_zero_info(check_memory(self._head_config, rows, self.embed_dim, self.trainer, held))
        self.head.on_setup()
        if self._is_fitting and self.hparams["compile"]:
            self.backbone.compile()
        self._ddp_params_and_buffers_to_ignore = [WEIGHT] if self.head.is_sharded else []  # DDP reads it
        if self.backbone.stem == "small":
            rank_zero_info(
                f"{self.hparams.get('backbone', 'The backbone')} has the stem for small images (inputs of "
                f"{tuple(self.hparams['input_shape'])}; stem='standard' keeps its own)."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW for the backbone and the head, with warm-up and cosine, stepped at every optimiser step.

        Raises:
            ConfigurationError: If neither `max_epochs` nor `max_steps` ends the run.
        """
        hparams: Any = self.hparams
        steps = count_steps(self.trainer)
        rates = (hparams.lr, hparams.weight_decay)
        optimizer = make_optimizer(self.backbone, self.head, self._head_config, *rates, self.trainer)
        warmup = warmup_steps(hparams.warmup_epochs, self.count_epochs(), steps)
        lowest = hparams.min_lr / hparams.lr if hparams.lr > 0.0 else 0.0
        schedule = warmup_cosine(optimizer, warmup, steps, lowest)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def count_epochs(self) -> float:
        """Epochs of the run; fractional if `max_steps` ends it within an epoch."""
        trainer = self.trainer
        if trainer.num_training_batches == math.inf:  # with `max_steps` alone the loader has not been set up yet
            trainer.fit_loop.setup_data()
        steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        return trainer.estimated_stepping_batches / max(1, steps)

    def total_batch_size(self) -> int:
        """Samples per optimiser step of the current run, over all devices and accumulated batches."""
        return total_batch(self.trainer)

    def on_train_start(self) -> None:
        """Converts the state of a checkpoint to the memory format of this run's weights."""
        for optimizer in self.trainer.optimizers:
            match_layout(optimizer)

    def on_train_batch_start(self, batch: DatumBatch, batch_idx: int) -> None:
        """Seeds torch's global generators by (seed, epoch, step, rank), so that a resumed run draws the same numbers.

        Dropout and stochastic depth accept no other generator; `SampledHead` draws from it too, and augmentation has its own.
        Other code that draws from the global generators during training gets the same numbers in each run with this seed.
        """
        seed = getattr(self._data, "seed", None)
        if seed is not None:
            torch.manual_seed(derive_seed(seed, self.current_epoch, batch_idx, self.global_rank, 1))

    def on_fit_end(self) -> None:
        """Gathers all rows of the head on rank 0 and applies their pending decay."""
        self.head.on_fit_end(self.trainer.optimizers[0], self.trainer.default_root_dir)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings ``(B, K)`` of inputs as the data module makes them, ``(B, *input_shape)``, floating point."""
        self._require_network()
        features: Tensor = self.backbone(x)
        return features

    def training_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """The ``loss`` of a batch, a scalar, and for callbacks its ``features``, the detached embeddings ``(B, K)``."""
        batch = DatumBatch(*batch)
        features = self.backbone(batch.input)
        loss = self.head(features, self.class_of(batch))
        size = len(batch.index)
        self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False, prog_bar=True, batch_size=size)
        for name, value in {"train/loss": loss.detach(), "train/loss_gap": loss.detach() - self.head.floor}.items():
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return {"loss": loss, "features": features.detach()}

    def validation_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """Embeddings of a batch, for callbacks: under ``features``, shape ``(B, K)``."""
        return {"features": self.backbone(batch.input)}

    test_step = validation_step

    def predict_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """Embeddings ``(B, K)`` with ``index`` and ``label``, both ``(B,)``."""
        return {"features": self.backbone(batch.input), "index": batch.index, "label": batch.label}
