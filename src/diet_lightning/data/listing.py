"""The image files below a folder, and what is left out of them."""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
NUMBER = re.compile(r"\d+")
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
        left_out: Reason → number of entries that were left out.
    """

    root: str
    paths: list[str]
    folders: list[tuple[str, ...]]
    folder_of: NDArray[np.int32]
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
    """A folder whose entries are being visited; `inside` are the identities of it and of all folders around it."""

    number: int
    prefix: str
    parts: tuple[str, ...]
    inside: frozenset[tuple[int, int]]
    names: Iterator[str]


class _Walk:
    """Visits all entries below a folder, in order, without a Python object per entry but for the paths of the images."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.paths: list[str] = []
        self.folder_of = array("i")
        self.folders: list[tuple[str, ...]] = []
        self.left_out: Counter[Reason] = Counter()

    def run(self) -> Listing:
        around = frozenset(_identity(parent) for parent in Path(self.root).resolve().parents)
        stack = list(self._opened(self.root, (), around))
        while stack:
            folder = stack[-1]
            name = next(folder.names, None)
            if name is None:
                stack.pop()
            elif name[-1] == "/":
                name = name[:-1]
                stack += self._opened(folder.prefix + name, (*folder.parts, name), folder.inside)
            else:
                self.paths.append(folder.prefix + name)
                self.folder_of.append(folder.number)
        folder_of = np.frombuffer(self.folder_of, dtype=np.int32) if self.paths else np.empty(0, np.int32)
        return Listing(self.root, self.paths, self.folders, folder_of, self.left_out)

    def _opened(self, path: str, parts: tuple[str, ...], around: frozenset[tuple[int, int]]) -> list[_Folder]:
        """The folder with its entries; empty if it is left out."""
        try:
            identity = _identity(path)
            if identity in around:  # else every image would be listed again, without end
                self.left_out[LINK_ABOVE] += 1
                return []
            found, left_out, is_run = self._scan(path)
        except PermissionError as error:
            if not parts:
                raise DataError(f"Source folder '{path}' cannot be read: {error.strerror}; change its mode.") from error
            self.left_out[CLOSED_FOLDER] += 1
            self.folders.append(parts)
            return []
        except OSError as error:
            raise DataError(f"Folder '{path}' cannot be read: {error.strerror}; mend or remove it.") from error
        if is_run and parts:
            self.left_out[RUN_FOLDER] += 1
            return []
        self.left_out.update(left_out)
        self.folders.append(parts)
        # the second sort keeps the order of the first where keys are equal, so that the order is total
        names = sorted(sorted(found), key=natural_key)
        return [_Folder(len(self.folders) - 1, os.path.join(path, ""), parts, around | {identity}, iter(names))]

    @staticmethod
    def _scan(path: str) -> tuple[list[str], Counter[Reason], bool]:
        """Names of images and, with a slash at the end, of folders; what is left out; whether it is a run's folder."""
        found: list[str] = []
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
                    found.append(f"{name}/" if is_folder else name)
                else:
                    left_out[reason] += 1
                    is_run = is_run or (name == RECORD and _is_record(entry.path))
        return found, left_out, is_run


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
        return None if os.access(entry.path, os.R_OK, effective_ids=EFFECTIVE_IDS) else CLOSED_FILE
    if name in SYSTEM_FILES:
        return SYSTEM_FILE
    if not ending:
        return NO_ENDING
    text = f"{ending}{cure_of(ending)}"
    return Reason(text, text, False, ending in TEXT_ENDINGS)


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_record(file: str) -> bool:
    """Whether a file is the ``run.json`` of a run of this package."""
    values: Any = read_json(Path(file), or_none=True)
    return isinstance(values, dict) and {"num_samples", "backbone"} <= values.keys()


def natural_key(name: str) -> str:
    """A key that sorts ``img2`` before ``img10``, the same on every file system.

    Args:
        name: One component of a path; a slash at its end is ignored.
    """
    # numbers sort before other characters, and by their number of digits first
    return NUMBER.sub(_number_key, name.rstrip("/").lower())


def _number_key(digits: re.Match[str]) -> str:
    number = str(int(digits[0]))
    return f"\0{chr(len(number))}{number}"
