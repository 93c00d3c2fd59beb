"""The fit's bar: what its line says, and how seldom it asks."""

from __future__ import annotations

import re

import pytest
from helpers import TinyNet, image_data
from lightning.pytorch.loggers import CSVLogger

from diet_lightning import DIETModule, FitProgressBar, OnlineLinearProbe
from diet_lightning.callbacks import progress_bar as progress
from diet_lightning.objective.loss import loss_floor


class Lines(FitProgressBar):
    """Keeps what was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def get_metrics(self, trainer, pl_module):
        found = super().get_metrics(trainer, pl_module)
        self.shown.append((trainer.global_step, found))
        return found


@pytest.mark.parametrize("interval", [0.0, 1000.0])
def test_the_line_says_how_the_run_goes_and_is_drawn_when_due(make_trainer, tmp_path, monkeypatch, interval, capsys):
    monkeypatch.setattr(progress, "INTERVAL", interval)
    bar = Lines()
    options = {"enable_progress_bar": True, "logger": CSVLogger(tmp_path), "log_every_n_steps": 1}
    trainer = make_trainer(max_epochs=3, callbacks=[bar, OnlineLinearProbe()], **options)
    trainer.fit(DIETModule(TinyNet()), image_data())
    step, last = bar.shown[-1]
    assert step == 9
    assert set(last) == {"loss", "gap", "probe", "samples/s", "left"}
    loss = trainer.logged_metrics["train/loss_step"]
    assert float(last["loss"]) == pytest.approx(float(loss), abs=6e-4)
    assert float(last["gap"]) == pytest.approx(float(loss) - loss_floor(48, 0.8), abs=6e-4)
    assert last["probe"] == f"{trainer.callback_metrics['val/probe_top1']:.1%}"
    assert float(last["samples/s"]) > 0
    assert last["left"] == "0:00:00"
    assert re.fullmatch(r"\d:\d\d:\d\d", next(shown["left"] for step, shown in bar.shown if step))
    # each epoch draws three batches or the last one, and both ends
    drawn = sum(step % 3 > 0 for step, _ in bar.shown)
    assert drawn == (6 if interval == 0.0 else 0)
    assert "samples/s=" in capsys.readouterr().out


def test_the_rate_leaves_validation_out(make_trainer, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])

    class Slow(TinyNet):
        def forward(self, x):
            clock[0] += 1.0 if self.training else 100.0  # seconds
            return super().forward(x)

    bar = Lines()
    make_trainer(max_epochs=2, callbacks=[bar], enable_progress_bar=True, num_sanity_val_steps=0).fit(
        DIETModule(Slow(), num_samples=48, input_shape=[3, 8, 8]), image_data()
    )
    assert {shown.get("samples/s") for _, shown in bar.shown} == {"16"}
    # three steps of 1 s and two validation batches of 100 s: as much again is left
    assert next(shown["left"] for step, shown in bar.shown if step == 3 and shown["left"] != "0:00:03") == "0:03:23"
