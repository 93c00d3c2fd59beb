"""A folder of images → the files of each split with their classes, in the users' or an archive's layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diet_lightning.data.images import list_images
from diet_lightning.errors import DataError

LabelledFile = tuple[Path, str | None]  # an image and its class, None without one

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
TINY_IMAGENET = "val/val_annotations.txt"
CUB = ("images.txt", "train_test_split.txt")


def split_files(root: Path) -> dict[str, list[LabelledFile]]:
    """The images of each split.

    Args:
        root: Holds split folders of class folders, class folders, or images; or it is TinyImageNet's or CUB-200-2011's own
            folder as their archives unpack it.

    Returns:
        ``train``, and ``val`` and ``test`` where they exist.

    Raises:
        DataError: If the folder holds no images, or their splits or classes are ambiguous.
    """
    if (root / TINY_IMAGENET).is_file():
        return _tiny_imagenet(root)
    if all((root / name).is_file() for name in CUB):
        return _cub(root)
    return _split_folders(root)


def _tiny_imagenet(root: Path) -> dict[str, list[LabelledFile]]:
    """Class folders for training; validation images in one folder beside a list of their classes."""
    val, listing = root / "val", root / TINY_IMAGENET
    # many tools move these images into class folders and leave the list
    as_unpacked = (val / "images").is_dir() and list_images(val / "images")
    held_out = _listed(val / "images", _pairs(listing), listing) if as_unpacked else _tree(val)
    return {"train": _tree(root / "train"), "val": held_out}  # the classes of the test images are not public


def _cub(root: Path) -> dict[str, list[LabelledFile]]:
    """Class folders below ``images``; one list numbers the files, another says by number which are for training."""
    listing, split_list = (root / name for name in CUB)
    part_of = {number: {"1": "train", "0": "test"}.get(flag) for number, flag in _pairs(split_list)}
    named: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for number, name in _pairs(listing):
        part = part_of.get(number)
        if part is None:
            raise DataError(
                f"File '{split_list}' does not say whether image {number} ({name}) is for training: expected a line "
                f"'{number} 1' if it is, or '{number} 0'."
            )
        named[part].append((name, Path(name).parts[0]))
    if not named["train"]:
        raise DataError(f"File '{split_list}' names no image for training: unpack the archive again.")
    return {part: _listed(root / "images", pairs, listing) for part, pairs in named.items() if pairs}


def _split_folders(root: Path) -> dict[str, list[LabelledFile]]:
    """The folders called train, val and test; without them, all images are for training."""
    folders = {child.name.lower(): child for child in sorted(root.iterdir()) if child.is_dir() and child.name[0] != "."}
    parts = {
        part: next((folders[name] for name in names if name in folders), None) for part, names in SPLIT_NAMES.items()
    }
    if parts["train"] is None:
        return {"train": _tree(root)}
    others = [folder.name for folder in folders.values() if folder not in parts.values() and list_images(folder)]
    if others:
        raise DataError(
            f"Source folder '{root}' holds '{parts['train'].name}' beside {others}: a split, or a class? Put all class "
            "folders into one named 'train', or keep other images elsewhere."
        )
    return {part: _tree(folder) for part, folder in parts.items() if folder is not None}


def _tree(folder: Path) -> list[LabelledFile]:
    """Image files of a folder with their class: the name of the folder right below it, or None where it is flat."""
    files = list_images(folder)
    if not files:
        raise DataError(
            f"Source folder '{folder}' holds no images: expected files such as .jpg or .png in it or below it."
        )
    classes = [path.relative_to(folder).parts[0] if path.parent != folder else None for path in files]
    if None in classes and any(classes):
        raise DataError(
            f"Source folder '{folder}' holds images both directly and in subfolders: put all into class folders, or all "
            "into one flat folder."
        )
    return list(zip(files, classes, strict=True))


def _listed(folder: Path, pairs: Iterable[tuple[str, str]], listing: Path) -> list[LabelledFile]:
    """Files of a folder by the pairs ``(name, class)`` of a list."""
    files: list[LabelledFile] = [(folder / name, label) for name, label in pairs]
    missing = [path for path, _ in files if not path.is_file()]
    if missing:
        raise DataError(
            f"File '{listing}' lists {len(missing)} image(s) that do not exist, such as '{missing[0]}': unpack the archive "
            "again."
        )
    return files


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
