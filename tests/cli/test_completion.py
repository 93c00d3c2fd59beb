"""The completion scripts, in the shells that they are for."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from diet_lightning.__main__ import main
from diet_lightning.cli import COMMANDS

CONFIGS = {path.stem for path in (Path(str(resources.files("diet_lightning"))) / "configs").glob("*.yaml")}
# sources the script, asks for the last of some words, and prints one answer per line
ASK = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _diet; printf "%s\\n" "${COMPREPLY[@]}"'
TIME = 'start=$EPOCHREALTIME; source "$1"; end=$EPOCHREALTIME; echo $((${end/./} - ${start/./}))'  # in microseconds


def printed(*args):
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        assert main(list(args)) == 0
    return stream.getvalue()


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "diet.bash"
    file.write_text(printed("completion", "bash"))
    return file


def bash(code, *args):
    command = ["bash", "--norc", "--noprofile", "-c", code, "bash", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def complete(script):
    """Words of a command line, of which the last is completed → the answers."""
    return lambda *words: bash(ASK, script, "diet", *words)


def test_script_is_small_and_quick(script):
    assert script.stat().st_size < 300_000
    assert min(int(*bash(TIME, script)) for _ in range(5)) < 50_000


def test_commands(complete):
    assert set(complete("")) == {*COMMANDS, "--help", "--version"}
    assert complete("au") == ["audit"]
    assert complete("--v") == ["--version"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_in_the_help_of_a_command(command, complete):
    with contextlib.redirect_stdout(io.StringIO()) as stream, contextlib.suppress(SystemExit):
        main([command, "--help"])
    listed = {word for line in stream.getvalue().splitlines() if line.startswith("  --") for word in line.split()[:1]}
    offered = complete(command, "--")
    assert len(set(offered)) == len(offered)
    assert listed <= set(offered)


def test_options_of_some_commands(complete):
    assert complete("fit", "--config", "digits", "--model.label_s") == ["--model.label_smoothing"]
    assert complete("fit", "--model.label-s") == ["--model.label_smoothing"]
    assert complete("fit", "--run-d") == ["--run_dir"]
    assert complete("fit", "--help") == ["--help", "--help_all"]
    assert {"--trainer.max_epochs", "--data.source", "--probe.lr", "--ckpt_path"} <= set(complete("fit", "--"))
    assert complete("test", "run", "--offline.b") == ["--offline.baselines"]
    assert complete("audit", "run", "--o") == ["--output"]
    assert complete("memory", "--o") == []
    assert complete("nonsense", "--") == []


@pytest.mark.parametrize(
    "words", [["--config", ""], ["-c", ""], ["--lr=1", "--config", "=", ""], ["--config", "="]], ids=str
)
def test_shipped_configurations_and_files(words, complete):
    Path("mine.yaml").touch()
    assert set(complete("fit", *words)) == {*CONFIGS, "mine.yaml"}
    if words[-1] != "=":
        assert complete("fit", *words[:-1], "ci") == ["cifar10", "cifar100"]
        assert complete("fit", *words[:-1], "mi") == ["mine.yaml"]


def test_paths(complete):
    Path("runs/photos").mkdir(parents=True)
    Path("runs/cached").mkdir()
    assert complete("test", "ru") == ["runs"]
    assert complete("compare", "runs/photos", "runs/c") == ["runs/cached"]
    assert complete("fit", "--run_dir", "runs/p") == ["runs/photos"]
    assert complete("fit", "--data.source", "folder", ":", "runs/p") == ["runs/photos"]  # as bash splits it


def test_shells(complete):
    assert complete("completion", "b") == ["bash"]


def test_zsh_script(tmp_path):
    text = printed("completion", "zsh")
    assert text.startswith("#compdef diet\n")
    assert len(text) < 300_000
    for name, help in COMMANDS.items():
        assert f'"{name}:{help}"' in text
    for word in ("--model.label_smoothing", "--help_all", "--fdr", *CONFIGS):
        assert f" {word}" in text
    if zsh := shutil.which("zsh"):
        (tmp_path / "_diet").write_text(text)
        load = f"autoload -Uz compinit && compinit -u -D && source {tmp_path}/_diet && whence -w _diet"
        done = subprocess.run([zsh, "-f", "-c", load], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "_diet: function\n", "")
