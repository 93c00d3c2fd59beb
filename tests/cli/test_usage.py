"""Help, names and usage errors of all commands."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diet_lightning import DIETDataModule, DIETModule, __version__
from diet_lightning.__main__ import main
from diet_lightning.cli import COMMANDS, HELP, TRAINER_COMMANDS, all_options
from diet_lightning.cli.functions import run_function
from diet_lightning.cli.help_screens import OPTIONS, SHOWN, listed_options, screen
from diet_lightning.cli.usage import UsageError, usage_error

NAMES = ["fit", "validate", "test", "predict", "data", "compare", "audit", "export", "memory", "demo", "completion"]


def output_of(args, capsys):
    """What a command prints that ends with status 0."""
    try:
        status = main(args)
    except SystemExit as end:
        status = end.code or 0
    assert status == 0
    return capsys.readouterr().out


def test_overview_names_every_command_in_one_line_each(capsys):
    text = output_of(["--help"], capsys)
    assert text == output_of([], capsys) == output_of(["-h"], capsys)
    assert list(COMMANDS) == NAMES
    listed = [line.split() for line in text.partition("commands:\n")[2].partition("\n\n")[0].splitlines()]
    assert [name for name, *_ in listed] == NAMES
    assert all(len(words) > 3 for words in listed)
    assert max(map(len, text.splitlines())) <= 100
    assert output_of(["--version"], capsys).split() == ["diet", __version__]


QUICK = ["--help", "--version", "fot", *(f"{name} --help" for name in NAMES), "fit --lerning_rate 1"]
QUICK += ["memory --num-sampels 3", "fit --config no_such_config", "test no_such_run", "predict one two"]
QUICK += ["fit --data.source folder:no_such_folder"]


@pytest.mark.parametrize("line", QUICK)
def test_help_version_and_typing_errors_are_quick_and_load_neither_torch_nor_lightning(line, tmp_path):
    code = (
        "import sys; from diet_lightning.__main__ import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'lightning', 'numpy', 'jsonargparse') if name in sys.modules])"
    )
    done, seconds = None, []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time, which other processes hardly change
        done = subprocess.run([sys.executable, "-c", code, *line.split()], cwd=tmp_path, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert min(seconds) < 0.6


@pytest.mark.parametrize("command", NAMES)
def test_kept_help_and_options_are_those_of_the_parsers(command):
    assert (HELP / f"{command}.txt").read_text() == screen(command), "run python -m diet_lightning.cli.help_screens"
    # without the Trainer's, which depend on the release of Lightning
    kept, listed = (
        {n for n in names if "trainer." not in n} for names in (all_options()[command], listed_options(command))
    )
    assert kept == listed, "run python -m diet_lightning.cli.help_screens"
    assert {file.name for file in HELP.iterdir()} == {*(f"{name}.txt" for name in NAMES), "options.json"}


def shown_options(text):
    return [line.split()[0] for line in text.splitlines() if line.startswith("  --")]


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
def test_help_is_one_screen_with_the_parsers_defaults_and_examples_that_parse(command, capsys):
    text = output_of([command, "--help"], capsys)
    assert len(text.splitlines()) <= 45
    assert max(map(len, text.splitlines())) <= 80
    assert f"diet {command} --help-all" in text
    assert ("[RUN]" in text) == (command != "fit")
    assert shown_options(text) == [f"--{name}" for name in SHOWN[command]]
    examples = [
        f"--{name}={OPTIONS[name][0]}" for name in SHOWN[command] if name not in ("ckpt_path", "trainer.devices")
    ]
    printed = yaml.safe_load(output_of([command, *examples, "--print_config"], capsys))
    assert printed["data"]["source"] == "folder:photos"
    default = yaml.safe_load(output_of([command, "--print_config"], capsys))
    sentences = " ".join(text.split())
    for name in SHOWN[command]:
        value = default
        for key in name.split("."):
            value = value.get(key)  # None of `config`, which is not a setting
        word = {None: "null", True: "true", False: "false"}.get(value, value)
        words = sentences.partition(f" --{name} {OPTIONS[name][0]} ")[2]
        assert words.partition("(default: ")[2].startswith(f"{word})."), name


def test_fit_help_shows_what_matters(capsys):
    options = set(shown_options(output_of(["fit", "--help"], capsys)))
    names = "data.source model.backbone trainer.max_epochs data.batch_size data.image_size model.lr run_dir config"
    assert {f"--{name}" for name in f"{names} trainer.precision trainer.devices".split()} <= options


def test_help_all_shows_every_option_of_data_and_model_and_a_short_usage(capsys):
    text = output_of(["fit", "--help-all"], capsys)
    assert text == output_of(["fit", "--help_all"], capsys)
    assert text.startswith("usage: diet fit [options]\n")
    given = {"model": (DIETModule, {"num_samples"}), "data": (DIETDataModule, {"seed"})}  # each linked to another
    for group, (cls, linked) in given.items():
        code = cls.__init__.__code__
        for name in set(code.co_varnames[1 : code.co_argcount]) - linked:
            # Python 3.13 names all forms of an option before its value
            assert re.search(rf"--{group}\.{name}[ ,]", text), name
    assert "torch.nn.Bilinear" not in text
    assert text.count("\n") < 700
    assert "--output" in output_of(["predict", "--help-all"], capsys)
    assert "--offline.shots" in output_of(["test", "--help-all"], capsys)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("data", "diet data SOURCE [options]"),
        ("audit", "diet audit RUN [options]"),
        ("export", "diet export RUN [options]"),
        ("compare", "diet compare RUN [RUN ...] [options]"),
        ("completion", "diet completion SHELL [options]"),
        ("memory", "diet memory [options]"),
        ("demo", "diet demo [options]"),
    ],
)
def test_help_of_functions_shows_what_is_positional(command, usage, capsys):
    text = output_of([command, "--help"], capsys)
    assert text.startswith(f"usage: {usage}\n")
    assert len(text.splitlines()) <= 45
    if command in ("data", "audit", "export", "compare"):
        assert "--output" in text


ERRORS = {
    "fot": ("Unknown command 'fot': did you mean 'fit'?", "diet --help"),
    "xyzzy": ("Unknown command 'xyzzy'.", "diet --help"),
    "--print_completion=shtab-bash": ("Expected a command, such as fit, but got the option", "diet --help"),
    "bill --num-samples 3": ("Command 'bill' is now called 'memory'.", "diet memory --help"),
    "fit --model.label_smooting 1": (
        "Unknown option --model.label_smooting: did you mean --model.label_smoothing?",
        "diet fit --help",
    ),
    "fit --lr 1": ("Unknown option --lr: did you mean --model.lr?", "diet fit --help"),
    "fit --model.nonsense 1": ("Unknown option --model.nonsense.", "diet fit --help"),
    "fit --lerning_rate 1": ("Unknown option --lerning_rate.", "diet fit --help"),
    "fit --trainer.max_epocs 1": ("--trainer.max_epocs: did you mean --trainer.max_epochs?", "diet fit --help"),
    "fit --data.mean+=0.5 --data.std_+=0.5": ("Unknown option --data.std_: did you mean", "diet fit --help"),
    "memory --num-sampels=3": ("--num_sampels: did you mean --num_samples?", "diet memory --help"),
    "fit --config wrong.yaml": ("In the configuration: Unknown option --model.nonsense.", "diet fit --help"),
    "fit --config no_such_config": ("Configuration 'no_such_config' does not exist", "diet fit --help"),
    "fit --trainer.max-epochs few": (
        "Expected option --trainer.max_epochs to be int or null, but got 'few'.",
        "diet fit --help",
    ),
    "fit --model.stem huge": ("to be one of 'auto', 'small', 'standard', but got 'huge'.", "diet fit --help"),
    "fit --trainer.logger nope": ("the name of a class", "diet fit --help"),
    "fit --trainer.logger.class_path=CSVLogger --trainer.logger.nix=3": ("Option 'nix' is not", "diet fit --help"),
    "fit --data.batch_size": ("Option --data.batch_size needs a value.", "diet fit --help"),
    "fit photos": ("Unexpected argument 'photos'.", "diet fit --help"),
    "test --ckpt-path last.ckpt": ("--ckpt_path is now given without its name: diet test RUN.", "diet test --help"),
    "predict one two": ("Expected one run, but got one, two.", "diet predict --help"),
    "audit": ("Missing argument: RUN.", "diet audit --help"),
    "data": ("Missing argument: SOURCE.", "diet data --help"),
    "memory": ("Missing argument: --num_samples.", "diet memory --help"),
    "fit --model.placement fused": ("--model.placement is now called --model.head.kind.", "diet fit --help"),
    "fit --model.head-lr 0.1": ("--model.head_lr is now called --model.head.lr.", "diet fit --help"),
    "test --offline.draws 3": ("--offline.draws is now called --offline.num_trials.", "diet test --help"),
    "audit run --false-discoveries 0.2": ("--false_discoveries is now called --fdr.", "diet audit --help"),
    "audit run --k many": ("Expected option --k to be int, but got 'many'.", "diet audit --help"),
    "completion fish": ("one of 'bash', 'zsh', but got 'fish'.", "diet completion --help"),
}


@pytest.mark.parametrize("line", ERRORS)
def test_usage_error_is_a_sentence_and_the_line_to_look_at(line, capsys):
    Path("wrong.yaml").write_text("model:\n  nonsense: 3\n")
    sentence, see = ERRORS[line]
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    said, look = printed.err.splitlines()
    assert printed.out == ""
    assert said.startswith("diet: error: ")
    assert sentence in said
    assert look == f"See `{see}`."


def test_messages_of_a_parser_that_are_not_known_are_one_line():
    error = usage_error("Something\n  else: went\n\nwrong", "fit", [])
    assert str(error) == "Something else: went wrong"
    assert error.help == "diet fit --help"


@pytest.mark.parametrize("dash", ["-", "_"])
def test_dashes_and_underscores_are_both_read(dash, capsys):
    names = ("--trainer.max_epochs", "--model.label_smoothing", "--run_dir", "--print_config")
    epochs, smoothing, run_dir, printing = (f"--{name[2:].replace('_', dash)}" for name in names)
    args = ["fit", epochs, "3", f"{smoothing}=0.25", run_dir, "a-b_c", printing]
    config = yaml.safe_load(output_of(args, capsys))
    assert (config["trainer"]["max_epochs"], config["model"]["label_smoothing"]) == (3, 0.25)
    assert config["run_dir"] == "a-b_c"


def test_abbreviations_are_read(capsys):
    config = yaml.safe_load(output_of(["fit", "--data.batch", "64", "--print_config"], capsys))
    assert config["data"]["batch_size"] == 64


def test_positional_parameters_of_functions():
    seen = []

    def one(run: str, output_dir: str = "out") -> None:
        seen.append((run, output_dir))

    def several(runs: list[str], output_dir: str = "out") -> None:
        seen.append((runs, output_dir))

    def named(*, num_samples: int) -> None:
        seen.append(num_samples)

    run_function("one", one, ["runs/a=b", "--output-dir", "o"])
    run_function("one", one, ["--output_dir", "o", "a b"])
    run_function("one", one, ["7"])
    run_function("several", several, ["a b", "[1]", "null", "--output_dir=o"])
    run_function("several", several, ["a"])
    run_function("named", named, ["--num-samples", "3"])
    assert seen == [
        ("runs/a=b", "o"),
        ("a b", "o"),
        ("7", "out"),
        (["a b", "[1]", "null"], "o"),
        (["a"], "out"),
        3,
    ]
    wrong = {"'b'": (one, ["a", "b"]), "RUN": (several, []), "'3'": (named, ["3"]), "--num_samples": (named, [])}
    for word, (function, args) in wrong.items():
        with pytest.raises(UsageError, match=f"(Unexpected|Missing) argument:? {word}"):
            run_function("x", function, args)


def test_a_run_may_stand_anywhere_among_the_options(tmp_path):
    from diet_lightning.cli.arguments import trainer_arguments

    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (tmp_path / "run/config.yaml").touch()
    expected = {
        f"--config={tmp_path}/run/config.yaml",
        f"--run_dir={tmp_path}/run",
        f"--ckpt_path={checkpoint}",
        "--offline.shots",
        "-1",
        "--offline.k=3",
    }
    options = ["--offline.shots", "-1", "--offline.k=3"]
    for place in (0, 2, 3):
        for run in (str(tmp_path / "run"), str(checkpoint)):
            command, *found = trainer_arguments(["test", *options[:place], run, *options[place:]])
            assert command == "test"
            assert set(found) == expected
            assert found.index("-1") == found.index("--offline.shots") + 1
            assert len(found) == len(expected)
    chosen = trainer_arguments(["test", str(checkpoint), "--config=debug"])
    assert not any("run_dir" in arg or str(tmp_path / "run/config.yaml") in arg for arg in chosen)
