"""The examples run as scripts, leave their files below runs/, and split into notebook cells."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import images
from PIL import Image

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = [*sorted(FOLDER.glob("[0-9]*.py")), *sorted(FOLDER.glob("paper/[0-9]*.py"))]
PERCENT = r"\d+\.\d%"
EXPECTED = {  # what each prints, and the files it leaves in its run folder
    "01_quickstart": ([rf"Linear probe: {PERCENT} of the 450"], ["figure.png", "**/metrics.csv", "**/*.ckpt"]),
    "02_own_images": (
        [rf"untrained: {PERCENT} of", rf"DIET: {PERCENT} of", "broken.jpg"],
        ["figure.png", "neighbours.png", "**/*.ckpt"],
    ),
    "03_timm_backbone": (
        [rf"resnet10t: .* 512 .*{PERCENT}", rf"conv_mixer: .* 96 .*{PERCENT}", "the same embeddings"],
        ["resnet10t/**/*.ckpt", "conv_mixer/**/*.ckpt"],
    ),
    "04_signals": ([rf"{name}: {PERCENT} with all" for name in ("raw signals", "DIET")], ["figure.png"]),
    "10_linear_theory": (
        [r"ε = 0.4: closed form 2\.326742, learnt 2\.3267", r"ε = 0.8: closed form 2\.718473, learnt 2\.7184"],
        ["training.png", "blocks.png", "results.json"],
    ),
    "11_loss_predicts_probe": (["Spearman, smoothing 0.8: .*n = 3", "has a probe of"], ["figure1.png", "results.json"]),
    "12_few_samples": ([f"supervised, 10 a class: {PERCENT[:-1]}"], ["figure2.png", "results.json"]),
    "13_ablations": ([r"strength 3 \(the recipe\): "], ["ablations.png", "results.json"]),
    "14_identifiability": (
        [
            rf"{name}, d = 5, seed 0: R² -?\d+\.\d of latents"
            for name in ("unit-norm W", "free W", "free W, unit-norm f")
        ],
        ["identifiability.png", "results.json"],
    ),
    "15_continued_pretraining": ([rf"knn20_top1 {PERCENT} → {PERCENT}"], ["before_after.png", "results.json"]),
}


def run(script: Path) -> str:
    """Runs an example for one epoch in the current folder and returns what it wrote to both streams."""
    # a thread each: beside other processes, waiting threads cost more than they bring
    environment = {
        **os.environ,
        "DIET_EPOCHS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    environment.pop("DIET_IMAGES", None)
    result = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=200,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def cells(script: Path) -> list[tuple[bool, str]]:
    """The cells of a percent script: whether it is markdown, and its text."""
    head, *parts = re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not head.strip()
    return [(title.strip() == "[markdown]", text) for title, _, text in (part.partition("\n") for part in parts)]


def run_here(script: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs one of the paper's examples at its tiny size in this process, which spares each the imports."""
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("DIET_SIZE", "tiny")
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # what seed_everything sets goes when the test ends
    monkeypatch.syspath_prepend(script.parent)
    for name in ("record", "sweep", "latents"):  # they read the environment
        monkeypatch.delitem(sys.modules, name, raising=False)
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_runs_as_a_script(script, tmp_path, monkeypatch):
    printed = run_here(script, monkeypatch) if "from record import" in script.read_text() else run(script)
    lines, files = EXPECTED[script.stem]
    for line in lines:
        assert re.search(line, printed), printed
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    for pattern in files:
        assert list((tmp_path / "runs" / script.stem).glob(pattern)), pattern


def test_own_images_runs_as_a_notebook_on_a_flat_folder_without_labels(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, image in enumerate(images(66, side=30)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{n}.png")
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py"])
    monkeypatch.setenv("DIET_EPOCHS", "1")
    monkeypatch.setenv("DIET_IMAGES", str(folder))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # what seed_everything sets goes when the test ends
    namespace = {}
    with torch.random.fork_rng(devices=[]):
        for is_markdown, text in cells(EXAMPLES[1]):
            if not is_markdown:
                exec(text, namespace)
    assert "of the image's class" not in capsys.readouterr().out  # there are no classes
    assert (tmp_path / "runs/02_own_images/neighbours.png").is_file()


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_splits_into_notebook_cells(script):
    parts = cells(script)
    is_markdown, first = parts[0]
    assert is_markdown
    assert first.startswith("# # ")
    assert "Expect" in first  # the first thing that a reader learns is what should come out
    for is_markdown, text in parts:
        if is_markdown:
            assert all(line.startswith("#") for line in text.strip().splitlines())
        else:
            compile(text, script.name, "exec")
