"""Prints the rooms of the package, their files, and the arrows of imports among them.

    python docs/architecture.py

Imports within functions count too; those under TYPE_CHECKING do not. Only the standard library is needed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "diet_lightning"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE
# rooms that may import only what is in a later line or, without a circle of modules, in their own
FLOORS = (
    ("__main__",),
    ("cli",),
    ("audit",),
    ("training",),
    ("callbacks", "export"),
    ("data", "evaluation", "backbones"),
    ("transforms", "embeddings", "objective", "runs"),
    ("figures", "utilities", "errors", "__about__"),
)
ROOT = "__init__"  # the public names, imported lazily; no room imports it


class Import(NamedTuple):
    """An arrow between two modules, named below the package: ``data.cache``."""

    source: str
    target: str
    at_top: bool  # whether it happens when the source is imported


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Name below the package → file; a package's own name is its ``__init__``'s."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = file
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports(source: Path = SOURCE) -> list[Import]:
    """All arrows among the package's modules."""
    known = modules(source)
    found = []
    for name, file in known.items():
        for node, at_top in _import_nodes(ast.parse(file.read_text(encoding="utf-8")), True):
            found += [Import(name, target, at_top) for target in _targets(node, known) if target != name]
    return found


def _import_nodes(node: ast.AST, at_top: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_top
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for each in child.orelse:
                yield from _import_nodes(each, at_top)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _import_nodes(child, at_top and not inside)


def _targets(node: ast.Import | ast.ImportFrom, known: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that a statement imports: a submodule where it names one, else the package or module itself."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif node.level or node.module is None:
        raise ValueError(f"expected absolute imports, but line {node.lineno} has `{ast.unparse(node)}`")
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            continue
        below = name[len(PACKAGE) + 1 :]
        while below and below not in known:
            below = below.rpartition(".")[0]
        yield below or ROOT


def circles(arrows: list[Import]) -> list[list[str]]:
    """Circles of imports that happen when modules are imported, each from its first module back to it."""
    targets: dict[str, list[str]] = {}
    for arrow in arrows:
        if arrow.at_top:
            targets.setdefault(arrow.source, []).append(arrow.target)
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for target in targets.get(module, ()):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(targets):
        visit(module, [])
    return found


def upward(arrows: list[Import]) -> list[Import]:
    """Arrows to a floor above, or to the public names, which stand above all."""
    return [
        arrow
        for arrow in arrows
        if arrow.source != ROOT
        and (arrow.target == ROOT or floor_of(room_of(arrow.target)) < floor_of(room_of(arrow.source)))
    ]


def line_counts(source: Path = SOURCE) -> dict[str, int]:
    """File below the package → lines."""
    files = modules(source).values()
    return {file.relative_to(source).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in files}


def main() -> None:
    arrows, lines = imports(), line_counts()
    for rooms in FLOORS:
        for room in rooms:
            files = {
                name: count for name, count in lines.items() if name == f"{room}.py" or name.startswith(f"{room}/")
            }
            targets = {room_of(arrow.target) for arrow in arrows if room_of(arrow.source) == room} - {room}
            print(f"{room}  ({sum(files.values()):,} lines) → {', '.join(sorted(targets, key=floor_of)) or 'nothing'}")
            for name, count in files.items():
                if "/" in name:
                    print(f"    {name.partition('/')[2]:<26}{count:>5}")
        print()
    pairs = {(room_of(arrow.source), room_of(arrow.target)) for arrow in arrows}
    between = {pair for pair in pairs if pair[0] != pair[1] and ROOT not in pair}
    print(f"{sum(map(len, FLOORS))} rooms on {len(FLOORS)} floors, {len(between)} arrows between rooms")


if __name__ == "__main__":
    main()
