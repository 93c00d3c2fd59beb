"""Run folders: every run has its own, and no two processes write one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diet_lightning.errors import ConfigurationError
from diet_lightning.runs.folder import claim_run_dir, create_run_dir

pytestmark = pytest.mark.slow

RUNS, EPOCHS = 20, 2
# forked after the imports, as a scheduler starts many runs at once
START_AT_ONCE = f"""
import os, sys
from diet_lightning.__main__ import main

args = ["fit", "--config=debug", "--trainer.max_epochs={EPOCHS}", "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
ready, go = os.pipe()
children = []
for _ in range({RUNS}):
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(ready, 1)  # returns when the parent closes its end
        os._exit(main(args))
    children.append(child)
os.close(go)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(f"exit statuses {{statuses}}" if any(statuses) else 0)
"""


def read_metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
def test_twenty_runs_in_one_second_have_twenty_folders_and_all_their_metrics(tmp_path):
    done = subprocess.run([sys.executable, "-c", START_AT_ONCE], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == RUNS
    starts = {folder.name.split("-digits-")[0] for folder in folders}
    assert len(starts) < RUNS  # names are to the second: runs did start in the same one
    for folder in folders:
        assert (folder / "checkpoints/last.ckpt").is_file()
        rows = [row for row in read_metrics(folder) if row["train/loss"]]
        assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS))


def test_new_run_folders_are_numbered():
    names = [create_run_dir("folder:a b/c", "timm/x").name for _ in range(30)]
    assert len(set(names)) == 30
    assert all("-folder-timm-x" in name for name in names)
    assert any(name.endswith("-x-2") for name in names)


def test_run_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigurationError, match=r"Run folder 'runs/.*' cannot be written \(Not a directory\)"):
        create_run_dir("digits", "resnet8")


@pytest.mark.parametrize("resumed", [False, True])
def test_folder_in_use_is_refused_until_the_run_ends(tmp_path, resumed, monkeypatch):
    monkeypatch.setattr("diet_lightning.runs.folder.WORKERS_END", 0.1)
    held = claim_run_dir(tmp_path / "run", resumed)
    for second in (False, True):
        with pytest.raises(ConfigurationError, match="is in use by another running process: wait until it ends, or"):
            claim_run_dir(tmp_path / "run", second)
    held.release()
    claim_run_dir(tmp_path / "run", resumed).release()


HOLD_AND_DIE = """
import os, signal, sys, time
from pathlib import Path
from diet_lightning.runs.folder import claim_run_dir

held = claim_run_dir(Path("run"), False)
if os.fork() == 0:  # as a DataLoader's worker, which outlives a killed run for some seconds
    time.sleep(4)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process")
def test_killed_run_leaves_a_folder_that_can_be_resumed_at_once(tmp_path):
    done = subprocess.run([sys.executable, "-c", HOLD_AND_DIE], timeout=60)
    assert done.returncode == -signal.SIGKILL
    claim_run_dir(tmp_path / "run", True).release()
