"""CheckpointedModule: writing and reading the checkpoints of a module with a head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from diet_lightning.errors import CheckpointError
from diet_lightning.objective import DatumHead, HeadConfig
from diet_lightning.runs.checkpoint import read_checkpoint
from diet_lightning.training.head_checkpoint import WEIGHT, load_local_rows, save_full_rows
from diet_lightning.training.resume_checks import check_network, prepare_resume, require_same_target

EXTRA = "_extra_state"  # where `state_dict` keeps what `get_extra_state` returns


class CheckpointedModule(LightningModule):
    """A module whose checkpoints hold all rows of its head and are loaded without running code."""

    head: DatumHead
    target: ClassVar[str]  # what the classes are, kept in checkpoints
    class_noun: ClassVar[str]  # the classes in messages

    @abstractmethod
    def _build(self, rows: int, input_shape: Sequence[int]) -> None:
        """Makes backbone and head."""

    @property
    def is_built(self) -> bool:
        """Whether backbone and head exist: N and the shape of the inputs are known."""
        return "head" in self._modules

    @property
    def _is_fitting(self) -> bool:
        return self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    def get_extra_state(self) -> Tensor:
        """The shape of the inputs, which is saved with the weights for a process that has not read the data."""
        return torch.tensor(self.hparams["input_shape"] or [])

    def set_extra_state(self, state: Tensor) -> None:
        """Does nothing: `load_state_dict` builds the network from this state."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Builds the network first, if only other processes have built it: ``ddp_notebook`` returns their weights."""
        if not self.is_built and {WEIGHT, EXTRA} <= state_dict.keys():
            self._build(len(state_dict[WEIGHT]), state_dict[EXTRA].tolist())
        return super().load_state_dict(state_dict, strict, assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the kind of classes and all rows of the head, for any kind of head."""
        checkpoint["target"] = self.target
        save_full_rows(checkpoint, self.head, self.trainer.default_root_dir)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks N when training resumes; evaluation takes N from the checkpoint.

        Raises:
            CheckpointError: If training is resumed with another number of samples or another network.
        """
        rows = checkpoint["state_dict"].get(WEIGHT)
        if rows is None or not self.is_built:
            raise CheckpointError(f"The checkpoint holds no head ('{WEIGHT}'): it was not written by DIETModule.")
        require_same_target(self.target, checkpoint.get("target", "index"))
        if len(rows) != self.head.num_samples:
            if self._is_fitting:
                raise CheckpointError(
                    f"The checkpoint was trained on {len(rows)} {self.class_noun}, but this run has {self.head.num_samples}: "
                    "resume with the same data, or start a new run without `ckpt_path`."
                )
            self._build(len(rows), self.hparams["input_shape"])
        load_local_rows(checkpoint, self.head)
        check_network(checkpoint["state_dict"], self.state_dict())
        if self._is_fitting:
            prepare_resume(checkpoint, self.hparams)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, strict: bool | None = None, **kwargs: Any
    ) -> Self:
        """Loads a trained module; a checkpoint with pickled code raises an error.

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
                f"Checkpoint '{checkpoint_path}' was trained with a custom backbone: pass the untrained module as "
                f"{cls.__name__}.load_from_checkpoint(path, backbone=...)."
            )
        kwargs.setdefault("head", HeadConfig(**hparams.get("head", {})))
        return super().load_from_checkpoint(checkpoint_path, map_location, strict=strict, weights_only=True, **kwargs)
