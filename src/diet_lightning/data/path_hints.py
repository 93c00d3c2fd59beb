"""What to write for a path that was given as a source, or as a source of another kind."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from diet_lightning.data.image_formats import is_readable
from diet_lightning.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar", ".gz")
KIND_OF = {".csv": "csv:", ".tsv": "csv:", ".npz": "npz:", ".parquet": "hf:parquet:"}  # ending → kind of source
TABLES = (".xlsx", ".xls", ".ods")


def what_is_wrong(path: Path, wanted: str) -> str:
    """The rest of a sentence on a path of the wrong kind: whether it is missing, or what to write for it.

    Args:
        path: The path.
        wanted: What it should be, such as ``a folder of images``.
    """
    if path.is_dir():
        return f"is a folder: write folder:{path}."
    if path.is_file():
        return f"is a file: {_for_file(path)}."
    if path.exists():
        return f"is a device or socket: give the path of {wanted}."
    return f"does not exist: {_close(path)}give the path of {wanted}."


def require_folder(path: str) -> Path:
    """The folder of a source ``folder:PATH``; raises `DataError` if it does not exist or is not a folder."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"Source folder {path!r} {what_is_wrong(root, 'a folder of images')}")
    return root


def hint_for_path(name: str) -> str | None:
    """The sentence on a source that is a path without a kind: what to write; None for a name that is not a path."""
    path = Path(name).expanduser()
    if not name or name == ":":
        return None
    if path.exists():
        return f"Source {name!r} {what_is_wrong(path, 'a folder of images')}"
    if ":" not in name and (path.suffix or len(path.parts) > 1):
        return f"Source {name!r} does not exist: {_close(path)}write folder:PATH for a folder of images."
    return None


def near_kind(name: str, kinds: Collection[str]) -> str:
    """A question with the nearest kind of source, for a message; empty without one that is near.

    Args:
        name: The name of a source, such as ``foldr:photos``.
        kinds: The kinds of sources.
    """
    kind, colon, rest = name.partition(":")
    near = difflib.get_close_matches(kind.lower(), kinds, n=1, cutoff=0.7)
    return f"did you mean {near[0]}{colon}{rest}? Else " if near and kind not in kinds else ""


def _for_file(path: Path) -> str:
    """What to write for a file."""
    name = path.name.lower()
    if name.endswith(ARCHIVES):
        return f"unpack it and write folder:{path.with_name(name.split('.')[0])}"
    if path.suffix.lower() in KIND_OF:
        return f"write {KIND_OF[path.suffix.lower()]}{path}"
    if path.suffix.lower() in TABLES:
        return f"save it as comma-separated values and write csv:{path.with_suffix('.csv')}"
    if is_readable(path.suffix.lower()):
        return f"put all images into a folder and write folder:{path.parent}"
    return f"no source reads the ending {path.suffix!r}, put images into a folder and write folder:PATH"


def _close(path: Path) -> str:
    """The entry of the same folder with the nearest name, as a question."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"did you mean '{path.with_name(near[0])}', or " if near else ""
