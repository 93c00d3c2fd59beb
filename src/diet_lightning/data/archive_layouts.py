"""Folders as the archives of TinyImageNet and CUB-200-2011 unpack them."""

from __future__ import annotations

from pathlib import Path

from diet_lightning.data.folder_tree import Tree
from diet_lightning.data.labelled_files import LabelledFiles
from diet_lightning.data.layouts import Layout
from diet_lightning.data.listing import Listing
from diet_lightning.errors import DataError

TINY_IMAGENET = "val/val_annotations.txt"
CUB = ("images.txt", "train_test_split.txt")


def archive_layout(listing: Listing) -> Layout | None:
    """The splits of a folder that a known archive unpacks, recognised by the archive's lists.

    Args:
        listing: The images.

    Returns:
        Its splits; None for other folders.

    Raises:
        DataError: If lists and images do not match.
    """
    root = Path(listing.root)
    if (root / TINY_IMAGENET).is_file():
        return _tiny_imagenet(listing)
    if all((root / name).is_file() for name in CUB):
        return _cub(listing)
    return None


def _note(listing: Listing, archive: str, lists: str) -> str:
    return (
        f"Read '{listing.root}' as the archive of {archive} unpacks, with the classes in {lists}; set read.layout to splits, "
        "classes or flat if it is another data set."
    )


def _left_out(listing: Listing, splits: dict[str, LabelledFiles], why: str) -> list[str]:
    count = len(listing.paths) - sum(len(files.paths) for files in splits.values())
    if count <= 0:
        return []
    return [f"Left out {count:,} image(s) below '{listing.root}', since {why}; set read.layout to flat to read all."]


def _tiny_imagenet(listing: Listing) -> Layout:
    """Class folders for training; validation images in one folder beside a list of their classes."""
    root, annotations = Tree(listing), Path(listing.root, TINY_IMAGENET)
    images = root.child("val").child("images")
    # many tools move these images into class folders and leave the list
    as_unpacked = sum(images.counts.values()) > 0
    val = _listed(images.name, _pairs(annotations), annotations) if as_unpacked else root.child("val").files(True)
    splits = {"train": root.child("train").files(True), "val": val}
    why = "the classes of the test images are not public"
    return Layout(splits, [_note(listing, "TinyImageNet", TINY_IMAGENET)], _left_out(listing, splits, why))


def _cub(listing: Listing) -> Layout:
    """Class folders below ``images``; one list numbers the files, another says by number which are for training."""
    root = Path(listing.root)
    numbered, split_list = (root / name for name in CUB)
    part_of = {number: {"1": "train", "0": "test"}.get(flag) for number, flag in _pairs(split_list)}
    named: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for number, name in _pairs(numbered):
        part = part_of.get(number)
        if part is None:
            raise DataError(
                f"File '{split_list}' does not say whether image {number} ({name}) is for training: expected a line "
                f"'{number} 1' if it is, or '{number} 0'."
            )
        named[part].append((name, Path(name).parts[0]))
    if not named["train"]:
        raise DataError(f"File '{split_list}' names no image for training: unpack the archive again.")
    splits = {part: _listed(root / "images", pairs, numbered) for part, pairs in named.items() if pairs}
    left_out = _left_out(listing, splits, f"{CUB[0]} does not list them")
    return Layout(splits, [_note(listing, "CUB-200-2011", " and ".join(CUB))], left_out)


def _listed(folder: str | Path, pairs: list[tuple[str, str]], list_file: Path) -> LabelledFiles:
    """Files of a folder by the pairs ``(name, class)`` of a list."""
    paths = [Path(folder, name) for name, _ in pairs]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"File '{list_file}' lists {len(missing)} image(s) that do not exist, such as '{missing[0]}': unpack the archive "
            "again."
        )
    return LabelledFiles.from_names([str(path) for path in paths], [label for _, label in pairs])


def _pairs(file: Path) -> list[tuple[str, str]]:
    """The first two words of every line."""
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"File '{file}' cannot be read as text: {error}; unpack the archive again.") from error
    short = next((words for words in lines if len(words) < 2), None)
    if short is not None:
        raise DataError(
            f"Expected at least two words on every line of '{file}', but got {' '.join(short)!r}: unpack the archive again."
        )
    return [(words[0], words[1]) for words in lines]
