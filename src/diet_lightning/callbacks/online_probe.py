"""OnlineLinearProbe: a linear classifier on the embeddings, trained alongside the backbone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from diet_lightning.callbacks.split_accuracy import SplitAccuracy
from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.errors import ConfigurationError
from diet_lightning.utilities.seeding import derive_seed


class OnlineLinearProbe(SplitAccuracy):
    """Trains a linear classifier with bias on the detached embeddings of each training batch, and measures it.

    The weights of the backbone are bitwise those of a run without the probe. The probe has its own AdamW in float32, averages
    its gradients over the ranks, and resumes from a checkpoint. Samples without a label (-1) are ignored. A second fit starts
    with a new classifier. Logs ``train/{name}_top1`` (augmented images), ``val/{name}_top1`` and ``test/{name}_top1`` (clean
    images), and ``top5`` with more than five classes.

    Args:
        name: Name of the metrics; several probes at once need different names.
        num_classes: Number of classes; None reads it from the data module.
        lr: Learning rate.
        weight_decay: Weight decay of AdamW.
        enabled: None leaves out data without labels, with a message; True raises an error then.

    Raises:
        ConfigurationError: When training starts, if `enabled` is True and the training or the validation samples have no
            labels.
    """

    def __init__(
        self,
        name: str = "probe",
        num_classes: int | None = None,
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        enabled: bool | None = True,
    ) -> None:
        super().__init__(name, f"Probe {name!r}", num_classes, enabled)
        self.lr = lr
        self.weight_decay = weight_decay
        self._classifier: nn.Linear | None = None  # made when the dimension of the embeddings is known
        self._optimizer: torch.optim.Optimizer | None = None
        self._count: Tensor = torch.zeros(())  # labelled samples since the probe's last step, on this rank
        self._restored: dict[str, Any] = {}  # a checkpoint's state, until the classifier is made

    @property
    def state_key(self) -> str:
        """Keeps the states of several probes apart."""
        return f"{type(self).__qualname__}[{self.name}]"

    @property
    def classifier(self) -> nn.Linear:
        """The probe itself, once training or evaluation has started."""
        if self._classifier is None:
            raise ConfigurationError(f"Probe {self.name!r} has not been trained yet: fit first, or load a checkpoint.")
        return self._classifier

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the number of classes and the splits without labels; a fit starts over."""
        if stage == "fit":  # an earlier fit may have been of other data and another backbone
            self._classifier = self._optimizer = None
            self._restored, self._count = {}, torch.zeros(())
        super().setup(trainer, pl_module, stage)

    def _make(self, pl_module: LightningModule) -> None:
        if not self._is_on or self._classifier is not None:
            return
        embed_dim: Any = pl_module.embed_dim
        # the probe must not advance the generator that the backbone draws from
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(0))
            classifier = nn.Linear(embed_dim, self.num_classes or 0, dtype=torch.float32)
        self._classifier = classifier.to(pl_module.device)
        self._optimizer = torch.optim.AdamW(self._classifier.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        if self._restored:
            self._classifier.load_state_dict(self._restored["classifier"])
            self._optimizer.load_state_dict(self._restored["optimizer"])
            self._restored = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the classifier: the backbone exists and is on its device."""
        self._make(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, batch_idx: int
    ) -> None:
        """One step of the probe on the embeddings that the backbone's step computed."""
        if self._optimizer is None:
            return
        if "train" not in self._metrics:  # the first batch of this epoch
            self._measure("train", pl_module)
        features, label = outputs["features"].float(), batch.label
        self._check_labels(label)
        with torch.enable_grad():
            logits = self.classifier(features)
            # a sum, so that the average over ranks with unequal numbers of labelled samples is exact
            loss = F.cross_entropy(logits, label, ignore_index=NO_LABEL, reduction="sum")
            torch.autograd.backward(loss)
        self._metrics["train"].update(logits.detach(), label)
        self._count = self._count + (label != NO_LABEL).sum()  # on the labels' device
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            gradients: Any = [parameter.grad for parameter in self.classifier.parameters()]
            summed = torch.cat([parameters_to_vector(gradients), self._count.float().reshape(1)])
            summed = trainer.strategy.reduce(summed, reduce_op="sum")
            vector_to_parameters(summed[:-1] / summed[-1].clamp(min=1.0), gradients)
            self._count = torch.zeros(())
            self._optimizer.step()
            self._optimizer.zero_grad()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the accuracy on the epoch's augmented samples."""
        self.end_split("train", trainer, pl_module)

    def start_split(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the classifier of a checkpoint and starts to measure it."""
        if not self._is_on:
            return
        if self._classifier is None and not self._restored:
            rank_zero_info(f"Probe {self.name!r} is untrained: pass `ckpt_path` to evaluate one.")
            return
        self._make(pl_module)
        self._measure(split, pl_module)

    def _logits(self, features: Tensor, pl_module: LightningModule) -> Tensor:
        return self.classifier(features)  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, Any]:
        """Classifier and optimiser, as plain values and tensors."""
        if self._classifier is None or self._optimizer is None:
            return {}
        return {
            "num_classes": self.num_classes,
            "classifier": self._classifier.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the state until the classifier is made, unless the data have more classes by now."""
        if state_dict and state_dict["num_classes"] < (self.num_classes or 0):
            rank_zero_info(
                f"Probe {self.name!r} starts over: it has {state_dict['num_classes']} classes in the checkpoint, and the data "
                f"have {self.num_classes}."
            )
        elif state_dict:
            self.num_classes = state_dict["num_classes"]
            self._restored = state_dict
