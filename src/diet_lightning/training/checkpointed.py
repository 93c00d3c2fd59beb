"""CheckpointedModule: writing and reading the checkpoints of a module with a head, and the checks before training resumes.

A checkpoint is a dictionary of Lightning with tensors and plain values only:

- ``state_dict``: weights of backbone and head, with all N rows of the head under ``head.weight``;
- ``hyper_parameters``: arguments of the module, with N and the shape of the inputs; ``target``: what the classes are;
- ``DIETDataModule``: N, fingerprint and batch size of the data, scaling and normalisation, see `SplitReader.state_dict`;
- ``optimizer_states``, ``lr_schedulers``, ``loops``, ``epoch``, ``global_step``: where training resumes;
- ``callbacks``: such as the classifier of `OnlineLinearProbe` and the curves of `RunFigure`.

`runs.checkpoint` reads and writes the file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from typing_extensions import Self

from diet_lightning.backbones.exported import first_difference
from diet_lightning.errors import CheckpointError
from diet_lightning.objective import DatumHead, HeadConfig
from diet_lightning.runs.checkpoint import read_checkpoint

WEIGHT = "head.weight"
EXTRA = "_extra_state"  # where `state_dict` keeps what `get_extra_state` returns
TARGETS = {"index": "DIETModule (supervised=False)", "label": "SupervisedModule (supervised=True)"}


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

    @property
    def _data(self) -> Any:
        """The Trainer's data module, which need not be a `DIETDataModule`; None where there is none."""
        trainer: Any = self._trainer
        return None if trainer is None else trainer.datamodule

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
        if self.head.is_sharded:
            for entries, name in _tensors_with_rows(checkpoint):
                entries[name] = self.head.state_to_save(entries[name], self.trainer.default_root_dir)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks N when training resumes; evaluation takes N from the checkpoint.

        Raises:
            CheckpointError: If training is resumed with other classes, another number of them, or another network.
        """
        rows = checkpoint["state_dict"].get(WEIGHT)
        if rows is None or not self.is_built:
            raise CheckpointError(f"The checkpoint holds no head ('{WEIGHT}'): it was not written by DIETModule.")
        theirs, ours = TARGETS[checkpoint.get("target", "index")], TARGETS[self.target]
        if theirs != ours:
            raise CheckpointError(
                f"The checkpoint was trained with {theirs}, but this run uses {ours}: the rows of its head are other "
                f"classes; use {theirs}, or start a new run without `ckpt_path`."
            )
        if len(rows) != self.head.num_samples:
            if self._is_fitting:
                raise CheckpointError(
                    f"The checkpoint was trained on {len(rows)} {self.class_noun}, but this run has {self.head.num_samples}: "
                    "resume with the same data, or start a new run without `ckpt_path`."
                )
            self._build(len(rows), self.hparams["input_shape"])
        if self.head.is_sharded:
            for entries, name in _tensors_with_rows(checkpoint):
                entries[name] = self.head.state_to_load(entries[name])
        if (difference := first_difference(checkpoint["state_dict"], self.state_dict())) is not None:
            raise CheckpointError(
                f"The checkpoint's network differs from this one: {difference}; use the `backbone`, `stem` and `head.kind` it "
                "was trained with."
            )
        if self._is_fitting:
            _check_settings(checkpoint["hyper_parameters"], self.hparams)
            for name in ("optimizer_states", "callbacks"):
                # states that are restored without a copy must not stay mapped to the file
                checkpoint[name] = apply_to_collection(checkpoint.get(name), Tensor, Tensor.clone)

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


def _tensors_with_rows(checkpoint: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The tensors of a checkpoint with one entry per row of the head: their dictionaries, to be changed, and keys."""
    yield checkpoint["state_dict"], WEIGHT
    for optimizer in checkpoint.get("optimizer_states", []):
        for key in [group["params"][0] for group in optimizer["param_groups"] if group.get("name") == "head"]:
            # copies: the dictionaries are the optimiser's own
            state = dict(optimizer["state"].get(key, {}))
            optimizer["state"] = {**optimizer["state"], key: state}
            yield from [(state, name) for name, value in state.items() if isinstance(value, Tensor) and value.ndim]


def _check_settings(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compares the hyper-parameters: moments of other bits cannot be used, and the optimiser's settings are not changed."""
    theirs, here = saved["head"]["moment_bits"], ours["head"]["moment_bits"]
    if theirs != here:
        raise CheckpointError(
            f"The checkpoint was trained with head.moment_bits={theirs}, but this run has {here}: resume with "
            f"head.moment_bits={theirs}{' and head.kind=fused' if theirs == 8 else ''}."
        )
    settings, own = _optimizer_settings(saved), _optimizer_settings(ours)
    for name, value in settings.items():
        if value != own[name]:
            rank_zero_warn(
                f"Resuming with the checkpoint's {name}={value}; {name}={own[name]} is ignored. Start a new run to change it."
            )


def _optimizer_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: hparams[name] for name in ("lr", "weight_decay")}
    return settings | {f"head.{name}": hparams["head"][name] for name in ("lr", "weight_decay", "eps")}
