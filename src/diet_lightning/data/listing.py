"""The image files below a folder, and what is left out of them."""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diet_lightning.data.digest_store import stamp_of
from diet_lightning.data.image_formats import cure_of, is_readable
from diet_lightning.errors import DataError
from diet_lightning.runs.record import RECORD
from diet_lightning.utilities.files import read_json
from diet_lightning.utilities.text import decodable

TEXT_ENDINGS = frozenset(
    {".cfg", ".csv", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".toml", ".tsv", ".txt", ".xml", ".xmp"}
    | {".yaml", ".yml"}
)
SYSTEM_FOLDERS = frozenset(
    {".ipynb_checkpoints", "__macosx", "lost+found", "system volume information", "$recycle.bin", "recycler"}
    | {"@eadir", "@recycle", "#recycle", "#snapshot", "@recently-snapshot", "@tmp", ".@__thumb"}
)
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
SHOWN_REASONS = 8
FOLDER = (-1, 0, 0)  # in place of the stamp of a folder, whose size is not used
NUMBER = re.compile(r"(\d+)")
READ_BY_ALL = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
EFFECTIVE_IDS = os.access in os.supports_effective_ids


class Reason(NamedTuple):
    """Why an entry of a folder is left out.

    Attributes:
        one: Text after the number 1.
        many: Text after another number.
        is_folder: Whether the entry is a folder.
        is_harmless: Whether no image of the user can be missing because of it.
    """

    one: str
    many: str
    is_folder: bool = False
    is_harmless: bool = False


DEAD_LINK = Reason("dead link", "dead links")
SPECIAL = Reason("device or socket", "devices or sockets")
NO_ENDING = Reason("file without an ending", "files without an ending")
CLOSED_FILE = Reason("file without read permission", "files without read permission")
CLOSED_FOLDER = Reason("folder without read permission", "folders without read permission", True)
LINK_ABOVE = Reason("link to a folder above it", "links to folders above them", True, True)
RUN_FOLDER = Reason("folder of a run", "folders of runs", True, True)
SYSTEM_FOLDER = Reason("system folder", "system folders", True, True)
SYSTEM_FILE = Reason("system file", "system files", False, True)


@dataclass(frozen=True)
class Listing:
    """The image files below a folder.

    Attributes:
        root: The folder.
        paths: The files, in natural order of the components of their paths.
        folders: Of every folder that was read, images or not, the components of its path below `root`; ``()`` is `root`.
        folder_of: Position in `folders` of each file's folder, shape ``(N,)``.
        stamps: Size and times of each file, as of `kept_digests`, shape ``(N, 3)``.
        left_out: Reason → number of entries that were left out.
    """

    root: str
    paths: list[str]
    folders: list[tuple[str, ...]]
    folder_of: NDArray[np.int64]
    stamps: NDArray[np.int64]
    left_out: Counter[Reason]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of images right in each of the folders."""
        return np.bincount(self.folder_of, minlength=len(self.folders))

    @property
    def note(self) -> str | None:
        """One sentence on what was left out; None if nothing was."""
        if not self.left_out:
            return None
        folders = sum(count for reason, count in self.left_out.items() if reason.is_folder)
        files = sum(self.left_out.values()) - folders
        kinds = [_counted(files, "file", "files")] if files else []
        kinds += [_counted(folders, "folder", "folders")] if folders else []
        reasons = [_counted(count, reason.one, reason.many) for reason, count in self.left_out.most_common()]
        if len(reasons) > SHOWN_REASONS:
            others = sum(count for _, count in self.left_out.most_common()[SHOWN_REASONS:])
            reasons = [*reasons[:SHOWN_REASONS], _counted(others, "other", "others")]
        return decodable(f"Left out {' and '.join(kinds)} below '{self.root}': {', '.join(reasons)}.")

    @property
    def may_miss_images(self) -> bool:
        """Whether one of the entries that were left out may be an image of the user."""
        return any(not reason.is_harmless for reason in self.left_out)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def list_images(root: str | Path) -> Listing:
    """Lists the image files below a folder.

    Links are followed, unless they lead to a folder above. Hidden entries are ignored; folders of runs and of the
    operating system are left out.

    Args:
        root: The folder.

    Returns:
        Its images.

    Raises:
        DataError: If a folder cannot be read for another reason than its permissions.
    """
    return _Walk(os.fspath(root)).run()


class _Folder(NamedTuple):
    """A folder to be visited; `around` are the identities of the folders around it."""

    path: str
    parts: tuple[str, ...]
    around: frozenset[tuple[int, int]]


class _Walk:
    """Visits all entries below a folder, in order, without a Python object per entry but for the paths of the images."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.paths: list[str] = []
        self.folders: list[tuple[str, ...]] = []
        self.runs: list[tuple[int, int]] = []  # position of a folder, number of images that were listed in it at once
        self.stamps: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
        self.left_out: Counter[Reason] = Counter()

    def run(self) -> Listing:
        around = frozenset(_identity(parent) for parent in Path(self.root).resolve().parents)
        stack = [self._visit(_Folder(self.root, (), around))]
        while stack:
            folder = next(stack[-1], None)
            if folder is None:
                stack.pop()
            else:
                stack.append(self._visit(folder))
        positions, counts = np.array(self.runs, np.int64).reshape(-1, 2).T
        stamps = np.concatenate(self.stamps)
        return Listing(self.root, self.paths, self.folders, np.repeat(positions, counts), stamps, self.left_out)

    def _visit(self, folder: _Folder) -> Iterator[_Folder]:
        """Lists the images right in a folder; between them it yields the folders in it, unless it is left out."""
        path, parts, around = folder
        try:
            identity = _identity(path)
            if identity in around:  # else every image would be listed again, without end
                self.left_out[LINK_ABOVE] += 1
                return
            names, stamps, left_out, is_run = _scan(path)
        except PermissionError as error:
            if not parts:
                raise DataError(f"Source folder '{path}' cannot be read: {error.strerror}; change its mode.") from error
            self.left_out[CLOSED_FOLDER] += 1
            self.folders.append(parts)
            return
        except OSError as error:
            raise DataError(f"Folder '{path}' cannot be read: {error.strerror}; mend or remove it.") from error
        if is_run and parts:
            self.left_out[RUN_FOLDER] += 1
            return
        self.left_out.update(left_out)
        self.folders.append(parts)
        position, prefix, start = len(self.folders) - 1, os.path.join(path, ""), 0
        for stop in [*np.flatnonzero(stamps[:, 0] == FOLDER[0]).tolist(), len(names)]:
            self.paths += [prefix + name for name in names[start:stop]]
            self.stamps.append(stamps[start:stop])
            self.runs.append((position, stop - start))
            if stop < len(names):
                yield _Folder(prefix + names[stop], (*parts, names[stop]), around | {identity})
            start = stop + 1


def _scan(path: str) -> tuple[list[str], NDArray[np.int64], Counter[Reason], bool]:
    """Names of images and folders in order; their stamps, ``(n, 3)``; what is left out; whether it is a run's folder."""
    names: list[str] = []
    stamps = array("q")
    left_out: Counter[Reason] = Counter()
    is_run = False
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == "." and name.lower() not in SYSTEM_FOLDERS:
                continue
            is_folder = _is_folder(entry)
            reason = _reason_for_folder(entry) if is_folder else _reason_for_file(entry)
            if reason is None:
                names.append(name)
                stamps.extend(FOLDER if is_folder else stamp_of(entry.stat()))
            else:
                left_out[reason] += 1
                is_run = is_run or (name == RECORD and _is_record(entry.path))
    keys = natural_key("/".join(names)).split("/")
    # by name where keys are equal, so that the order is total
    ordered = sorted(zip(keys, names, range(len(names)), strict=False))
    rows = np.array(stamps, np.int64).reshape(-1, 3)
    return [name for _, name, _ in ordered], rows[[n for *_, n in ordered]], left_out, is_run


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link into a folder without permission, or in a circle
        return False


def _reason_for_folder(entry: os.DirEntry[str]) -> Reason | None:
    return SYSTEM_FOLDER if entry.name.lower() in SYSTEM_FOLDERS else None


def _reason_for_file(entry: os.DirEntry[str]) -> Reason | None:
    try:
        is_file = entry.is_file()
    except OSError:
        is_file = False
    if not is_file:
        return DEAD_LINK if entry.is_symlink() else SPECIAL
    name = entry.name.lower()
    stem, dot, tail = name.rpartition(".")
    ending = dot + tail if stem else ""
    if is_readable(ending):
        return None if _is_open(entry) else CLOSED_FILE
    if name in SYSTEM_FILES:
        return SYSTEM_FILE
    if not ending:
        return NO_ENDING
    text = f"{ending}{cure_of(ending)}"
    return Reason(text, text, False, ending in TEXT_ENDINGS)


def _is_open(entry: os.DirEntry[str]) -> bool:
    """Whether a file may be read; the system is asked only where the mode, which comes with the stamp, leaves it open."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return False
    return mode & READ_BY_ALL == READ_BY_ALL or os.access(entry.path, os.R_OK, effective_ids=EFFECTIVE_IDS)


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_record(file: str) -> bool:
    """Whether a file is the ``run.json`` of a run of this package."""
    values: Any = read_json(Path(file), or_none=True)
    return isinstance(values, dict) and {"num_samples", "backbone"} <= values.keys()


def natural_key(text: str) -> str:
    """A key that sorts ``img2`` before ``img10``, the same on every file system.

    Args:
        text: One component of a path, or several with ``/`` between them, as in the key.
    """
    parts = NUMBER.split(text.lower())
    keys = {digits: _number_key(digits) for digits in {*parts[1::2]}}
    parts[1::2] = map(keys.__getitem__, parts[1::2])
    return "".join(parts)


def _number_key(digits: str) -> str:
    # numbers sort before other characters, and by their number of digits first, which is never "/"
    number = str(int(digits))
    return f"\0{chr(ord('/') + len(number))}{number}"
