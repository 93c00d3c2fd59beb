"""LastBlocks: continued pretraining of the head alone at first, then of the last blocks of the backbone (DIET-CP)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from diet_lightning.errors import ConfigurationError, require, require_positive

# classes of residual and transformer blocks in torchvision, timm and torch
BLOCK = re.compile(r"Block|Bottleneck|InvertedResidual|EdgeResidual|DepthwiseSeparableConv|MBConv|EncoderLayer")


class LastBlocks(BaseFinetuning):  # Lightning's BackboneFinetuning unfreezes the whole backbone
    """Trains the head alone at first, then the last blocks of the backbone with it; the other weights are frozen.

    The regime of continued pretraining, DIET-CP (https://arxiv.org/abs/2509.06990). A block is a residual or transformer
    block by its class, such as the entries of a ViT's ``blocks`` or a ResNet's ``BasicBlock``; blocks nested in another block
    are not counted. Layers after the blocks, such as a final norm, train with them.

    Frozen parts are in eval mode: batch norm uses its running statistics and does not update them, and dropout is off.
    The gradients of the blocks are computed from the start and discarded while the head trains alone, since DDP fixes the
    parameters that it synchronises when training starts.

    Args:
        blocks: Number of blocks to train.
        head_only: Fraction of the epochs, at the start of the run, in which the head trains alone, in ``[0, 1)``; rounded
            to whole epochs.
        modules: Names of the parts of the network to train, as `named_modules` gives them, in place of the last blocks.

    Raises:
        ConfigurationError: For an argument outside its range; when training starts, if the network has fewer blocks or
            lacks one of `modules`.
    """

    def __init__(self, blocks: int = 2, head_only: float = 0.05, modules: list[str] | None = None) -> None:
        super().__init__()
        require_positive(blocks=blocks)
        require(0.0 <= head_only < 1.0, "head_only", "in [0, 1)", head_only)
        require(modules != [], "modules", "names of parts or None", modules)
        self.blocks = blocks
        self.head_only = head_only
        self.modules = modules
        self._parts: dict[str, nn.Module] = {}  # of the backbone by name, which train once the head has trained alone
        self._head_epochs = 0
        self._head_alone = False  # in the present epoch

    def state_dict(self) -> dict[str, Any]:
        """Empty: the base class would save parameter groups, which this callback does not change."""
        return {}

    # `pl_module` is Any, since a LightningModule does not declare its backbone

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Freezes the backbone before DDP collects the parameters that train."""
        if stage == TrainerFn.FITTING:
            pl_module.configure_model()  # at once where it is built
            super().setup(trainer, pl_module, stage)

    def freeze_before_training(self, pl_module: Any) -> None:
        """Freezes all but the parts that will train."""
        model = pl_module.backbone.model
        names = last_blocks(model, self.blocks) if self.modules is None else self.modules
        parts = dict(model.named_modules())
        if missing := [name for name in names if name not in parts]:
            raise ConfigurationError(
                f"Argument `modules` of LastBlocks names {missing[0]!r}, which {type(model).__name__} does not have: its parts are "
                f"{[child for child, _ in model.named_children()]}, and theirs."
            )
        self._parts = {name: parts[name] for name in names}
        self.freeze(model, train_bn=False)
        self.make_trainable(self._parts.values())

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Logs which parts train when, and restores the state of a run that resumes within an epoch."""
        epochs, parameters = pl_module.count_epochs(), list(pl_module.backbone.parameters())
        self._head_epochs = round(self.head_only * epochs)
        self.finetune_function(pl_module, trainer.current_epoch, trainer.optimizers[0])
        names = [name for name, part in self._parts.items() if list(part.parameters())]
        trained = sum(each.numel() for each in parameters if each.requires_grad)
        rank_zero_info(
            f"The head trains alone for {self._head_epochs} of {epochs:g} epochs, and then with {', '.join(names)}: {trained:,} "
            f"of the backbone's {sum(each.numel() for each in parameters):,} parameters."
        )

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        """Puts frozen parts into eval mode at the start of each epoch."""
        pl_module.backbone.eval()
        self._head_alone = epoch < self._head_epochs
        if not self._head_alone:
            for part in self._parts.values():
                part.train()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Discards the gradients of the blocks while the head trains alone; AdamW skips such parameters, also their decay."""
        if self._head_alone:
            pl_module.backbone.zero_grad(set_to_none=True)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Unfreezes the backbone, for a later fit without this callback."""
        self.make_trainable(pl_module.backbone)
        pl_module.backbone.train()


def last_blocks(model: nn.Module, count: int) -> list[str]:
    """Names of the last blocks of a network that registers its submodules in the order of computation, and of the layers after.

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
