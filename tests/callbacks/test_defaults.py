"""default_callbacks in a Trainer of a notebook."""

from __future__ import annotations

import pytest
import torch
from helpers import TinyNet, image_data

from diet_lightning import DIETModule, LeanCheckpointIO, default_callbacks


@pytest.mark.slow
def test_a_notebook_gets_what_the_command_line_has(make_trainer, tmp_path):
    callbacks = default_callbacks(tmp_path / "run", progress_bar=False)
    trainer = make_trainer(
        max_epochs=2, callbacks=callbacks, plugins=LeanCheckpointIO(), enable_checkpointing=True, log_every_n_steps=1
    )
    trainer.fit(DIETModule(TinyNet()), image_data())
    assert {"train/loss_gap", "val/rankme"} <= set(trainer.callback_metrics)
    assert "val/probe_top1" in trainer.callback_metrics
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert (tmp_path / "run/figure.png").read_bytes()[:4] == b"\x89PNG"
