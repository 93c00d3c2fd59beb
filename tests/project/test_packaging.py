"""What pyproject.toml promises: whatever is imported is declared, and the wheel holds what it needs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = "diet_lightning"
DISTRIBUTIONS = {  # module → distribution, where the names differ
    "PIL": "pillow",
    "pillow_heif": "pillow-heif",
    "docstring_parser": "docstring-parser",
    "lazy_loader": "lazy-loader",
    "lightning_utilities": "lightning-utilities",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "typing_extensions": "typing-extensions",
    "yaml": "pyyaml",
}


def declared(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", each)[0].lower() for each in requirements}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imported(node: ast.AST, optional: bool = False) -> Iterator[tuple[str, bool]]:
    """Top-level names of the modules that are imported, and whether within a function only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name.partition(".")[0], optional) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module.partition(".")[0], optional
        else:
            late = isinstance(child, ast.FunctionDef | ast.If)  # an `if` is for type checkers
            yield from imported(child, optional or late)


def third_party(source: Path) -> dict[str, bool]:
    """Distribution → whether it is imported within functions only."""
    found: dict[str, bool] = {}
    for file in source.rglob("*.py"):
        for name, optional in imported(ast.parse(file.read_text(encoding="utf-8"))):
            if name != PACKAGE and name not in sys.stdlib_module_names:
                key = DISTRIBUTIONS.get(name, name)
                found[key] = found.get(key, True) and optional
    return found


def test_whatever_is_imported_is_declared():
    required = declared(project()["dependencies"])
    extras = {name for each in project()["optional-dependencies"].values() for name in declared(each)}
    found = third_party(ROOT / "src")
    assert {"torch", "pillow", "timm"} <= found.keys()
    assert found.keys() - required - extras == set()
    # an extra may be absent: no module needs it to be imported
    assert {name for name, optional in found.items() if not optional} - required == set()


def test_an_import_that_is_not_declared_is_found(tmp_path):
    (tmp_path / "a.py").write_text("import os, yaml\nfrom foo.bar import baz\ndef f():\n    import late\n")
    assert third_party(tmp_path) == {"pyyaml": False, "foo": False, "late": True}


@pytest.mark.parametrize("name", ["pillow", "pyyaml", "lightning", "torch"])
def test_dependencies_have_a_lower_bound(name):
    (found,) = [each for each in project()["dependencies"] if re.fullmatch(rf"{name}(\[.*\])?>=[\d.]+", each)]
    assert found


def test_every_lazy_package_has_its_stub_beside_it_and_the_wheel_holds_it():
    # hatchling ships whatever is below the package and not ignored by git
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ] == {"wheel": {"packages": [f"src/{PACKAGE}"]}}
    lazy = [file for file in (ROOT / "src").rglob("__init__.py") if "attach_stub" in file.read_text(encoding="utf-8")]
    assert len(lazy) > 3
    for file in lazy:
        stub = ast.parse(file.with_suffix(".pyi").read_text(encoding="utf-8"))
        for node in stub.body:
            if isinstance(node, ast.ImportFrom):
                target = file.parent.joinpath(*node.module.split(".")).with_suffix(".py")
                defined = {
                    each.name for each in ast.parse(target.read_text(encoding="utf-8")).body if hasattr(each, "name")
                }
                assert {alias.name for alias in node.names} <= defined
