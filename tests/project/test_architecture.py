"""The rooms: who imports whom, how long files are, and what the core does without."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "docs"))
import architecture

CORE = ("objective", "evaluation", "transforms", "embeddings", "figures", "utilities")
HEAVY = ("lightning", "sklearn", "pandas", "matplotlib")
LONGEST = 300
LONG = {}
MOST_ARGUMENTS = 15
MANY_ARGUMENTS = {  # to become fewer, never more
    "DIETDataModule": 19,  # where the data are, how they are split, augmented, kept and loaded, in one place for the command line
}


def constructor_arguments(folder):
    """Class → number of arguments of its constructor, or of its fields where it is a dataclass or a named tuple."""
    found = {}
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                init = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
                fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
                made = node.decorator_list or any(
                    isinstance(base, ast.Name) and base.id == "NamedTuple" for base in node.bases
                )
                arguments = init[0].args if init else None
                if arguments is not None:
                    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                    found[node.name] = len(every) - 1
                elif made:
                    found[node.name] = len(fields)
    return found


def test_no_circle_of_imports():
    assert architecture.circles(architecture.imports()) == []


def test_no_arrow_upwards():
    assert architecture.upward(architecture.imports()) == []


def test_every_room_has_a_floor():
    rooms = {architecture.room_of(name) for name in architecture.modules()} - {architecture.ROOT}
    assert rooms == {room for rooms in architecture.FLOORS for room in rooms}


def test_files_are_short():
    lines = architecture.line_counts()
    assert {name: count for name, count in lines.items() if count > LONG.get(name, LONGEST)} == {}
    assert [name for name in LONG if lines[name] <= LONGEST] == []  # no exception without a reason


def test_constructors_take_few_arguments():
    counts = constructor_arguments(architecture.SOURCE)
    assert counts["DIETModule"] <= MOST_ARGUMENTS
    assert {name: n for name, n in counts.items() if n > MANY_ARGUMENTS.get(name, MOST_ARGUMENTS)} == {}
    assert [name for name in MANY_ARGUMENTS if counts[name] <= MOST_ARGUMENTS] == []  # no exception without a reason


@pytest.mark.parametrize("room", CORE)
def test_core_does_without_what_is_heavy(room, tmp_path):
    names = [name for name in architecture.modules() if architecture.room_of(name) == room]
    code = f"import sys, {', '.join(f'{architecture.PACKAGE}.{name}' for name in names)}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_public_names_are_lazy_and_all_there(tmp_path):
    code = (
        "import sys, diet_lightning as d; assert 'torch' not in sys.modules; assert set(d.__all__) <= set(dir(d)); "
        "[getattr(d, name) for name in d.__all__]; assert not hasattr(d, 'nothing')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_checks_find_what_they_look_for(tmp_path):
    files = {
        "__init__.py": "",
        "errors.py": "",
        # what only type checkers see is no arrow
        "objective/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from diet_lightning import DIETModule\n",
        "objective/loss.py": "from diet_lightning.objective import dense\n",
        "objective/dense.py": "from diet_lightning.objective.loss import floor\n",
        # upwards also within a function, but no circle
        "runs/folder.py": "def late():\n    import diet_lightning.training.module\n",
        "training/module.py": "from diet_lightning.runs.folder import late\nfrom diet_lightning import errors, DIETModule\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "many.py").write_text(
        "class Many:\n    def __init__(self, a, b, *, c): pass\n@dataclass\nclass Fields:\n    a: int\n    b: int = 0\n"
    )
    assert constructor_arguments(tmp_path) == {"Many": 3, "Fields": 2}
    (tmp_path / "many.py").unlink()
    arrows = architecture.imports(tmp_path)
    assert architecture.circles(arrows) == [["objective.dense", "objective.loss", "objective.dense"]]
    assert {(each.source, each.target) for each in architecture.upward(arrows)} == {
        ("runs.folder", "training.module"),
        ("training.module", "__init__"),
    }
