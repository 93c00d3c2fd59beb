"""DIETModule: backbone, head and the paper's recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from diet_lightning.backbones.architectures import Stem
from diet_lightning.backbones.factory import Backbone, create_backbone
from diet_lightning.backbones.initial_weights import load_start
from diet_lightning.callbacks.split_accuracy import ClassifierAccuracy
from diet_lightning.data.batch import DatumBatch
from diet_lightning.errors import CheckpointError, ConfigurationError
from diet_lightning.objective import HEADS, DatumHead, Placement, SampledHead, ShardedHead, SteppingHead
from diet_lightning.objective.loss import check_label_smoothing
from diet_lightning.runs.checkpoint import LeanCheckpointIO, read_checkpoint
from diet_lightning.training.resume_checks import check_moments, check_network, require_same_target, warn_of_ignored
from diet_lightning.training.schedule import REFERENCE_BATCH, match_layout, scaled_lr, warmup_cosine, warmup_steps
from diet_lightning.training.sharded_checkpoint import WEIGHT, keep_part, make_whole
from diet_lightning.training.supervised import Target, check_class_count, check_labels
from diet_lightning.training.trainer_checks import check_memory, check_placement
from diet_lightning.utilities.seeding import derive_seed

INPUT_SHAPE = "input_shape"  # a buffer


class DIETModule(LightningModule):
    """Self-supervised learning with the datum index as target (DIET, Algorithm 1).

    Every training sample is its own class: a backbone, a bias-free linear classifier with one row per sample, and
    label-smoothed cross-entropy. Ibrahim, Klindt and Balestriero, *Occam's Razor for Self Supervised Learning*, 2024,
    https://arxiv.org/abs/2406.10743. The defaults are the paper's recipe.

    N, the shape of the inputs and with them the network are read from the `DIETDataModule` when the Trainer starts; with
    other loaders give `num_samples` and `input_shape`. Then, as in a loaded checkpoint, the network is built at once.

    Logs ``train/loss`` and ``train/loss_gap``, the loss minus the least value it can take, so that runs of different N
    and smoothing compare; both are means over an epoch, in nats. ``train/loss_step`` is the loss of one step.

    Args:
        backbone: ``"resnet8"``, ``"resnet8_w64"`` (of another width), the name of a torchvision classification model,
            ``"timm/NAME"``, a folder of `diet export`, or in Python any `torch.nn.Module` that returns embeddings
            ``(B, K)``; see `create_backbone`.
        num_samples: N; None reads it from the data module.
        input_shape: Shape of one input, ``(C, H, W)`` for images; None reads it from the data module.
        label_smoothing: In ``[0, 1)``; sets the speed of convergence.
        lr: Learning rate at a total batch of 256; it is scaled by batch × ranks × accumulation / 256.
        weight_decay: AdamW's, on every parameter and the head's too.
        warmup_epochs: Epochs of linear warm-up, at most a tenth of the run; then a cosine.
        min_lr: Learning rate that the cosine ends at, at a total batch of 256 like `lr`; another `head_lr` falls to the same
            share of itself.
        stem: ``"small"`` gives a ResNet the stem for 32×32 images, ``"auto"`` does so up to 64 pixels.
        normalize_features: Divide each embedding by its L2 norm before the head.
        normalize_rows: Divide each row of the head by its L2 norm.
        temperature: The logits are divided by it.
        placement: How the N rows of the head are kept; the loss is the same but for the last. ``"dense"``: as an
            ordinary parameter. ``"fused"``: their gradient is never held, a third less memory, on one device.
            ``"sharded"``: spread over the devices of a DDP run. ``"sampled"``: an approximation whose cost does not grow
            with N, see `SampledHead`.
        num_sampled: Rows drawn at each step, for ``"sampled"``.
        head_on_cpu: Keep the rows in the CPU's memory, for ``"sampled"``.
        head_lr: The head's learning rate, at a batch of 256; None for `lr`.
        head_weight_decay: The head's; None for `weight_decay`.
        moment_bits: Of AdamW's moments of the rows: 32, or, for ``"fused"``, 8, so that the head takes half the memory: an
            approximation, see `Moments8bit`.
        eps: AdamW's, for the head. The gradient of a row that is not in the batch is about 1 / (N·B): at some ten
            million samples it falls below 1e-8.
        compile: Train the backbone through `torch.compile`.
        channels_last: Put the channels of images and convolutions last in memory, which is faster.
        target: What the classes are. ``"index"``: the samples, DIET. ``"label"``: the user's, a supervised run of the same
            backbone, data, augmentation and budget to hold DIET against; it needs a label for every training sample and
            ``placement="dense"``, and also logs the classifier's ``val/supervised_top1``. A `label_smoothing` of 0.8 is
            DIET's: 0.1 is usual here.
        num_classes: Of ``target="label"``; None reads it from the data module.
        weights: What the backbone starts from: ``"pretrained"``, torchvision's or timm's own weights, which they download
            once; a ``.safetensors`` file; a folder of `diet export`; or a run of `diet fit`; see `load_start`. They expect
            the `mean` and `std` that they were trained with. None for random weights.

    Raises:
        ConfigurationError: For an argument outside its range.

    Example:
        >>> module = DIETModule("resnet8", num_samples=100, input_shape=(1, 8, 8))
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 128])
    """

    backbone: Backbone
    head: DatumHead

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
        normalize_features: bool = False,
        normalize_rows: bool = False,
        temperature: float = 1.0,
        placement: Placement = "dense",
        num_sampled: int = 8192,
        head_on_cpu: bool = False,
        head_lr: float | None = None,
        head_weight_decay: float | None = None,
        moment_bits: Literal[8, 32] = 32,
        eps: float = 1e-8,
        compile: bool = False,
        channels_last: bool = True,
        target: Target = "index",
        num_classes: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_label_smoothing(label_smoothing)
        at_least_0 = {
            "lr": lr,
            "weight_decay": weight_decay,
            "warmup_epochs": warmup_epochs,
            "head_lr": head_lr,
            "head_weight_decay": head_weight_decay,
            "min_lr": min_lr,
            "eps": eps,
        }
        for name, value in at_least_0.items():
            if value is not None and not value >= 0.0:
                raise ConfigurationError(f"Expected argument `{name}` to be at least 0, but got {value}.")
        if min_lr > lr:
            raise ConfigurationError(f"Expected argument `min_lr` to be at most lr={lr}, but got {min_lr}.")
        if placement not in HEADS:
            raise ConfigurationError(
                f"Expected argument `placement` to be one of {list(HEADS)}, but got {placement!r}."
            )
        if head_on_cpu and placement != "sampled":
            raise ConfigurationError(
                f"Expected argument `head_on_cpu` to be False with placement={placement!r}, but got True: only the rows of "
                "'sampled' may stay there."
            )
        if moment_bits not in (8, 32) or (moment_bits == 8 and placement != "fused"):
            raise ConfigurationError(
                f"Expected argument `moment_bits` to be 32, or 8 with placement='fused', but got {moment_bits} with "
                f"placement={placement!r}."
            )
        if target not in get_args(Target):
            raise ConfigurationError(
                f"Expected argument `target` to be one of {list(get_args(Target))}, but got {target!r}."
            )
        if target == "label" and placement != "dense":
            raise ConfigurationError(
                f"Expected argument `placement` to be 'dense' with target='label', but got {placement!r}: classes are few, so "
                "their rows need no other."
            )
        is_module = isinstance(backbone, nn.Module)
        # plain values only, so that a checkpoint loads under weights_only=True
        self.save_hyperparameters(ignore=["backbone"] if is_module else [])
        self._labels_known = False  # of a supervised run: whether `setup` has seen them all
        self._given = (backbone,)  # in a tuple, as a module would be registered a second time
        if is_module:
            # registered now, so that `module.to(...)` and optimisers see it; its dimension needs an input
            self._modules["backbone"] = backbone  # type: ignore[assignment]
        rows = self.hparams[self._rows]
        if rows is not None and input_shape is not None:
            self._build(rows, input_shape)

    @property
    def is_supervised(self) -> bool:
        """Whether the classes are the user's labels."""
        return bool(self.hparams["target"] == "label")

    @property
    def _noun(self) -> str:
        return "classes" if self.is_supervised else "samples"

    @property
    def _rows(self) -> str:
        """The hyper-parameter that says how many rows the head has."""
        return "num_classes" if self.is_supervised else "num_samples"

    def _build(self, rows: int, input_shape: Sequence[int]) -> None:
        hparams: Any = self.hparams
        if self.is_supervised:
            check_class_count(rows)
        hparams[self._rows], hparams.input_shape = int(rows), [int(size) for size in input_shape]
        self.backbone = create_backbone(self._given[0], tuple(hparams.input_shape), hparams.stem)
        is_exported = isinstance(self._given[0], str) and self._given[0] != self.backbone.name
        if hparams.weights is not None and is_exported:
            raise ConfigurationError(
                f"Expected argument `weights` to be None with backbone={self._given[0]!r}, an exported folder with weights of its "
                f"own, but got {hparams.weights!r}: name the architecture, {self.backbone.name!r}, as `backbone`."
            )
        if hparams.weights is not None:
            load_start(self.backbone, hparams.weights)
        # a checkpoint of this run must need neither folder nor file
        hparams.weights = None
        if is_exported:
            hparams.backbone, hparams.stem = self.backbone.name, self.backbone.stem
        self.backbone.lay_out(hparams.channels_last)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._check_memory(held=0)
        # travels with the weights to a process that has not seen the data
        self.register_buffer(INPUT_SHAPE, torch.tensor(hparams.input_shape))
        names = ("label_smoothing", "normalize_features", "normalize_rows", "temperature")
        options = {name: hparams[name] for name in names}
        if hparams.placement == "sampled":
            options |= {"num_sampled": hparams.num_sampled, "on_cpu": hparams.head_on_cpu}
        elif hparams.placement == "fused":
            options |= {"moment_bits": hparams.moment_bits}
        self.head = HEADS[hparams.placement](int(rows), self.backbone.embed_dim, **options)

    @property
    def is_built(self) -> bool:
        """Whether backbone and head exist: N and the shape of the inputs are known."""
        return "head" in self._modules

    @property
    def embed_dim(self) -> int:
        """K, the dimension of the embeddings.

        Raises:
            ConfigurationError: While the network is not built.
        """
        self._require_network()
        return self.backbone.embed_dim

    @property
    def num_samples(self) -> int | None:
        """N, or None while it is not known."""
        count: int | None = self.hparams["num_samples"]
        return count

    # -- set-up --------------------------------------------------------------------------------------------------------

    def build(self, stage: str) -> None:
        """Reads N and the shape of the inputs from the data module and builds the network, once.

        `setup` does so; a callback that needs the network in its own `setup`, which comes before, calls it there.

        Args:
            stage: As in `setup`.

        Raises:
            ConfigurationError: If they are not to be found, or N is not the data's.
        """
        data = getattr(self.trainer, "datamodule", None)
        found = getattr(data, self._rows, None)
        count = self.hparams[self._rows] if self.hparams[self._rows] is not None else found
        shape = self.hparams["input_shape"] or getattr(data, "input_shape", None)
        if self.is_supervised and data is not None:
            check_class_count(count)
        if count is None or shape is None:
            raise ConfigurationError(
                f"DIETModule does not know the number of {self._noun} and the shape of the inputs: pass a DIETDataModule to the "
                f"Trainer, or set `{self._rows}` and `input_shape`."
            )
        if stage == TrainerFn.FITTING and found is not None and found != count:
            raise ConfigurationError(
                f"{self._rows}={count}, but the data module has {found} {self._noun}: leave `{self._rows}` out to read it from "
                "the data."
            )
        if stage == TrainerFn.FITTING:
            check_placement(self.hparams["placement"], self.trainer)
            labels = getattr(data, "train_labels", None) if self.is_supervised else None
            self._labels_known = labels is not None
            if labels is not None:
                check_labels(labels, torch.arange(len(labels)), count)
        if self.num_samples is None:
            self.hparams["num_samples"] = getattr(data, "num_samples", None)
        if not self.is_built:
            self._build(count, shape)
        elif stage == TrainerFn.FITTING:
            self._check_memory(held=self.head.weight.nbytes)

    def setup(self, stage: str) -> None:
        """Builds the network, and fits it to the Trainer's devices.

        Raises:
            ConfigurationError: As `build`.
        """
        self.build(stage)
        if isinstance(self.head, ShardedHead):
            self.head.spread()
        spread = isinstance(self.head, ShardedHead) and self.head.world > 1
        if stage == TrainerFn.FITTING and self.hparams["compile"]:
            self.backbone.compile()
        self._ddp_params_and_buffers_to_ignore = [INPUT_SHAPE, *([WEIGHT] if spread else [])]  # DDP reads it
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = LeanCheckpointIO()
        if self.backbone.stem == "small":
            rank_zero_info(
                f"{self.hparams.get('backbone', 'The backbone')} has the stem for small images (inputs of "
                f"{tuple(self.hparams['input_shape'])}; stem='standard' keeps its own)."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on the backbone and the head, warm-up and cosine by the step.

        Raises:
            ConfigurationError: If the run has no end.
        """
        hparams: Any = self.hparams
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise ConfigurationError(
                "Expected Trainer argument `max_epochs` or `max_steps` to end the run, but got neither: the cosine schedule "
                "needs an end."
            )
        batch, decay = self.total_batch_size(), hparams.weight_decay
        head_lr = hparams.lr if hparams.head_lr is None else hparams.head_lr
        head_decay = decay if hparams.head_weight_decay is None else hparams.head_weight_decay
        groups = [
            {"params": list(self.backbone.parameters()), "name": "backbone"},
            {
                "params": list(self.head.parameters()),
                "name": "head",
                "lr": scaled_lr(head_lr, batch),
                "weight_decay": head_decay,
                "eps": hparams.eps,
            },
        ]
        # the loss scaler of fp16 and clipping need the unfused step; elsewhere fused is the fast one at large N
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision not in ("16-mixed", "16")
        optimizer = torch.optim.AdamW(groups, lr=scaled_lr(hparams.lr, batch), weight_decay=decay, fused=fused)
        if isinstance(self.head, SteppingHead):
            self.head.attach(optimizer)
        warmup = warmup_steps(hparams.warmup_epochs, self.count_epochs(), int(total_steps))
        lowest = hparams.min_lr / hparams.lr if hparams.lr > 0.0 else 0.0
        schedule = warmup_cosine(optimizer, warmup, int(total_steps), lowest)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "lr"}}

    def _check_memory(self, held: int) -> None:
        hparams: Any = self.hparams
        sizes = {
            "num_samples": hparams[self._rows],
            "embed_dim": self.backbone.embed_dim,
            "batch_size": self._batch_size() or REFERENCE_BATCH,
            "num_sampled": hparams.num_sampled,
            "moment_bits": hparams.moment_bits,
        }
        check_memory(hparams.placement, sizes, self.trainer, hparams.head_on_cpu, held)

    def _batch_size(self) -> int | None:
        data = getattr(self.trainer, "datamodule", None)
        found = getattr(data, "batch_size", None) or getattr(self.trainer.train_dataloader, "batch_size", None)
        return None if found is None else int(found)

    def total_batch_size(self) -> int:
        """Samples per optimiser step of the run under way, of all devices and accumulated batches.

        Raises:
            ConfigurationError: If the loader does not tell its batch size.
        """
        batch = self._batch_size()
        if batch is None:
            raise ConfigurationError(
                "DIETModule cannot find the batch size that the learning rate is scaled by: use a DIETDataModule or a "
                "DataLoader with `batch_size`."
            )
        return batch * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def count_epochs(self) -> float:
        """Epochs of the run under way; not a whole number where `max_steps` ends it within one."""
        if self.trainer.num_training_batches == float("inf"):  # `max_steps` alone, so that Lightning has not looked yet
            self.trainer.fit_loop.setup_data()
        steps = -(-int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches)
        return self.trainer.estimated_stepping_batches / max(1, steps)

    def configure_callbacks(self) -> Sequence[Callback]:
        """A supervised run also measures its own classifier."""
        return [ClassifierAccuracy()] if self.is_supervised else []

    # -- steps ---------------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of a batch.

        Args:
            x: Inputs as the data module makes them, shape ``(B, *input_shape)``, floating point.

        Returns:
            Shape ``(B, K)``.
        """
        self._require_network()
        features: Tensor = self.backbone(x)
        return features

    def _require_network(self) -> None:
        if not self.is_built:
            raise ConfigurationError(
                "The network is not built yet, since N and the shape of the inputs are not known: fit with a DIETDataModule, "
                "or give `num_samples` and `input_shape`."
            )

    def on_train_start(self) -> None:
        """Fits what a checkpoint has brought to how this run lays its weights out."""
        for optimizer in self.trainer.optimizers:
            match_layout(optimizer)

    def on_train_batch_start(self, batch: DatumBatch, batch_idx: int) -> None:
        """Ties dropout and its like to (seed, epoch, step), so that a resumed run draws what it would have drawn.

        Raises:
            DataError: In a supervised run, for a sample without a label that `setup` could not know of.
        """
        if self.is_supervised and not self._labels_known:
            check_labels(batch.label, batch.index, self.head.num_samples)
        seed = getattr(getattr(self.trainer, "datamodule", None), "seed", None)
        if seed is not None:
            torch.manual_seed(derive_seed(seed, self.current_epoch, batch_idx, self.global_rank, 1))

    def training_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """One step.

        Args:
            batch: Augmented inputs with their indices.
            batch_idx: Number of the batch in the epoch.

        Returns:
            ``loss``, a scalar, and ``features``, the detached embeddings ``(B, K)`` for callbacks.
        """
        batch = DatumBatch(*batch)
        features = self.backbone(batch.input)
        loss = self.head(features, batch.label if self.is_supervised else batch.index)
        size = len(batch.index)
        self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False, prog_bar=True, batch_size=size)
        for name, value in {"train/loss": loss.detach(), "train/loss_gap": loss.detach() - self.head.floor}.items():
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return {"loss": loss, "features": features.detach()}

    def validation_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """Embeddings of a batch, for callbacks: under ``features``, shape ``(B, K)``."""
        return {"features": self.backbone(batch.input)}

    def test_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """Embeddings of a batch, for callbacks: under ``features``, shape ``(B, K)``."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: DatumBatch, batch_idx: int) -> dict[str, Tensor]:
        """Embeddings ``(B, K)`` with ``index`` and ``label``, both ``(B,)``."""
        return {"features": self.backbone(batch.input), "index": batch.index, "label": batch.label}

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Builds the network first, where other processes have (``ddp_notebook``): Lightning hands back their weights."""
        if not self.is_built and {WEIGHT, INPUT_SHAPE} <= state_dict.keys():
            self._build(len(state_dict[WEIGHT]), state_dict[INPUT_SHAPE].tolist())
        return super().load_state_dict(state_dict, strict, assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Every checkpoint holds the whole head, whatever its placement."""
        if isinstance(self.head, ShardedHead):
            make_whole(checkpoint, self.head, self.trainer.default_root_dir)

    def on_fit_end(self) -> None:
        """Leaves a head that is used like any other: all rows on rank 0, their decay caught up."""
        if isinstance(self.head, ShardedHead):
            self.head.collect(self.trainer.optimizers[0], self.trainer.default_root_dir)
        elif isinstance(self.head, SampledHead):
            self.head.settle()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to resume with another N; to evaluate, takes the checkpoint's.

        Raises:
            CheckpointError: If training is resumed with another number of samples or another network.
        """
        rows = checkpoint["state_dict"].get(WEIGHT)
        if rows is None or not self.is_built:
            raise CheckpointError(f"The checkpoint holds no head ('{WEIGHT}'): it was not written by DIETModule.")
        require_same_target(self.hparams, checkpoint.get("hyper_parameters", {}))
        fitting = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        if len(rows) != self.head.num_samples:
            if fitting:
                raise CheckpointError(
                    f"The checkpoint was trained on {len(rows)} {self._noun}, but this run has {self.head.num_samples}: resume "
                    "with the same data, or start a new run without `ckpt_path`."
                )
            self._build(len(rows), self.hparams["input_shape"])
        if isinstance(self.head, ShardedHead):
            keep_part(checkpoint, self.head)
        check_network(checkpoint["state_dict"], self.state_dict())
        if fitting:
            check_moments(self.hparams, checkpoint.get("hyper_parameters", {}))
            warn_of_ignored(self.hparams, checkpoint.get("hyper_parameters", {}))
            for part in ("optimizer_states", "callbacks"):
                # what is restored without a copy must not stay mapped to the file
                checkpoint[part] = apply_to_collection(checkpoint.get(part), Tensor, Tensor.clone)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, strict: bool | None = None, **kwargs: Any
    ) -> DIETModule:
        """Loads a trained module; pickled code is refused.

        Args:
            checkpoint_path: A local checkpoint.
            map_location: Device, as in `torch.load`.
            strict: Whether the keys must match.
            **kwargs: Hyper-parameters that replace the checkpoint's; ``backbone=`` is needed where it was a module.

        Returns:
            The module.

        Raises:
            CheckpointError: If the file cannot be read, or needs its backbone.
        """
        hparams = read_checkpoint(checkpoint_path).get("hyper_parameters", {})
        if "backbone" not in {**hparams, **kwargs}:
            raise CheckpointError(
                f"Checkpoint '{checkpoint_path}' was trained with a backbone of your own: pass it, untrained, as "
                "DIETModule.load_from_checkpoint(path, backbone=...)."
            )
        return super().load_from_checkpoint(checkpoint_path, map_location, strict=strict, weights_only=True, **kwargs)
