"""LastBlocks: continued pretraining, the head alone at first and then the end of the backbone (DIET-CP)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from diet_lightning.errors import ConfigurationError

# classes of residual and transformer blocks in torchvision, timm and torch
BLOCK = re.compile(r"Block|Bottleneck|InvertedResidual|EdgeResidual|DepthwiseSeparableConv|MBConv|EncoderLayer")


class LastBlocks(BaseFinetuning):
    """Trains the head alone at first, and then the last blocks of the backbone with it; all else stays as it started.

    The regime of continued pretraining, DIET-CP (https://arxiv.org/abs/2509.06990). A block is a part of the network whose
    class is a residual or transformer block, such as the entries of a ViT's ``blocks``, a ResNet's ``BasicBlock`` or
    ``Bottleneck``, a ConvNeXt's ``ConvNeXtBlock``, and that does not lie within another. What follows the blocks, such as a
    final norm, trains with them.

    What does not train is in eval mode: its batch norms keep their statistics and normalise by them, and it drops nothing.
    The blocks' gradients are computed from the start, and dropped while the head trains alone: ranks of a DDP run agree on
    the parameters that they exchange once, when training starts. Where a run stands follows from its epoch, so it resumes
    exactly.

    Args:
        blocks: How many.
        head_only: Share of the run's epochs, the first, in which the head trains alone, in ``[0, 1)``; rounded to whole
            epochs.
        modules: In place of the last blocks: names of the parts of the network to train, as `named_modules` gives them.

    Raises:
        ConfigurationError: For an argument outside its range; when training starts, if the network has not as many blocks or
            no such part.
    """

    def __init__(self, blocks: int = 2, head_only: float = 0.05, modules: list[str] | None = None) -> None:
        super().__init__()
        if blocks < 1:
            raise ConfigurationError(f"Expected argument `blocks` to be at least 1, but got {blocks}.")
        if not 0.0 <= head_only < 1.0:
            raise ConfigurationError(f"Expected argument `head_only` to be in [0, 1), but got {head_only}.")
        if modules is not None and not modules:
            raise ConfigurationError(
                "Expected argument `modules` to name at least one part, or to be None, but got []."
            )
        self.blocks = blocks
        self.head_only = head_only
        self.modules = modules
        self._parts: dict[str, nn.Module] = {}  # of the backbone by name, which train once the head has trained alone
        self._head_epochs = 0
        self._head_alone = False  # in the present epoch

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning would keep the optimiser's groups, which stay as they are."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freezes the backbone before DDP looks which parameters train."""
        if stage == TrainerFn.FITTING:
            pl_module.configure_model()  # at once where it is built
            super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freezes all but the parts that will train."""
        backbone: Any = pl_module.backbone
        model = backbone.model
        names = last_blocks(model, self.blocks) if self.modules is None else self.modules
        self._parts = {name: _part(model, name) for name in names}
        self.freeze(model, train_bn=False)
        self.make_trainable(self._parts.values())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what trains when, and finds its place in a run that goes on within an epoch."""
        module: Any = pl_module
        epochs, parameters = module.count_epochs(), list(module.backbone.parameters())
        self._head_epochs = round(self.head_only * epochs)
        self.finetune_function(pl_module, trainer.current_epoch, trainer.optimizers[0])
        names = [name for name, part in self._parts.items() if any(True for _ in part.parameters())]
        trained = sum(each.numel() for each in parameters if each.requires_grad)
        rank_zero_info(
            f"The head trains alone for {self._head_epochs} of {epochs:g} epochs, and then with {', '.join(names)}: {trained:,} "
            f"of the backbone's {sum(each.numel() for each in parameters):,} parameters."
        )

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """At the start of each epoch: what does not train is in eval mode."""
        backbone: Any = pl_module.backbone
        backbone.eval()
        self._head_alone = epoch < self._head_epochs
        if not self._head_alone:
            for part in self._parts.values():
                part.train()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drops the blocks' gradients while the head trains alone: without one a parameter does not even decay."""
        if self._head_alone:
            backbone: Any = pl_module.backbone
            backbone.zero_grad(set_to_none=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves a backbone that trains as a whole, should it be fitted again without this callback."""
        backbone: Any = pl_module.backbone
        self.make_trainable(backbone)
        backbone.train()


def last_blocks(model: nn.Module, count: int) -> list[str]:
    """The last residual or transformer blocks of a network, and what follows them.

    Args:
        model: The network, whose parts are registered in the order that they compute in.
        count: How many blocks.

    Returns:
        Names of its parts, as `named_modules` gives them.

    Raises:
        ConfigurationError: If it has fewer blocks.

    Example:
        >>> import torchvision
        >>> last_blocks(torchvision.models.resnet18(), 1)
        ['layer4.1', 'avgpool', 'fc']
    """
    blocks = _outermost(name for name, part in model.named_modules() if name and BLOCK.search(type(part).__name__))
    if len(blocks) < count:
        children = [name for name, _ in model.named_children()]
        raise ConfigurationError(
            f"Expected a backbone of at least {count} residual or transformer blocks, but {type(model).__name__} has "
            f"{len(blocks)} that are known as such: give LastBlocks fewer `blocks`, or `modules`, names of its parts such as "
            f"{children[-1:]}."
        )
    names = [name for name, _ in model.named_modules()]
    return _outermost(names[names.index(blocks[-count]) :])


def _outermost(names: Iterable[str]) -> list[str]:
    """Names, in the order of `named_modules`, without those of parts within another."""
    found: list[str] = []
    for name in names:
        if not found or not name.startswith(f"{found[-1]}."):
            found.append(name)
    return found


def _part(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise ConfigurationError(
            f"Argument `modules` of LastBlocks names {name!r}, which {type(model).__name__} does not have: its parts are "
            f"{[child for child, _ in model.named_children()]}, and theirs."
        ) from error
