"""Every line of the README is run, at a small size."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diet_lightning import __version__
from diet_lightning.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "bash" for line in block.splitlines()]
SMALL = {
    "fit": ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--data.batch_size=8", "--data.image_size=16"]
}


def test_notebook_form_runs(tmp_path):
    (code,) = [block for language, block in BLOCKS if language == "python"]
    assert "max_epochs=40" in code
    script = tmp_path / "readme.py"
    script.write_text(code.replace("max_epochs=40", "max_epochs=1"))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/notebook/figure.png").exists()
    assert "tensor(" in done.stdout


@pytest.fixture
def photos(tmp_path):
    """A folder of photographs beside which the commands are run."""
    rng = np.random.default_rng(0)
    for n in range(24):
        file = tmp_path / "photos" / ("cat", "dog")[n % 2] / f"{n}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)).save(file)
    return tmp_path


def test_commands_run_in_order(photos, monkeypatch, capfd):
    monkeypatch.chdir(photos)
    for line in COMMANDS:
        if not line.startswith("diet "):
            continue
        _, *args = shlex.split(line)
        if args[0] == "fit" and args[1:] != ["--help"]:
            # `fit` alone stands for the digits' configuration
            args = ["fit", *(args[1:] or ["--config", "digits"]), *SMALL["fit"]]
        try:
            status = main(args)
        except SystemExit as end:  # of --help
            status = end.code or 0
        assert status == 0, f"{line}: {capfd.readouterr().err}"
    assert {path.name for path in (photos / "runs/photos").iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "run.json",
        ".lock",
        "checkpoints",
        "figure.png",
        "embeddings.npz",
        "evaluation.json",
        "figures",
        "audit",
        "export",
    }


def test_other_commands_are_the_projects_own():
    others = [line for line in COMMANDS if not line.startswith("diet ")]
    assert others == ["make demo", "make test", "pip install -e ."]
    for target in ("demo", "test"):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        assert ("bin/diet demo" if target == "demo" else "-m pytest") in done.stdout
    assert main(["fit", "--config", "cifar10", "--trainer.fast_dev_run=true"]) == 1  # CIFAR-10 is not downloaded here


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_citation_names_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
