"""What the folders below a ``folder:`` mean: splits, classes, or nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.folder_tree import Tree
from diet_lightning.data.labelled_files import LabelledFiles
from diet_lightning.data.listing import Listing
from diet_lightning.data.split_names import SPLIT_NAMES, hinted_split, split_of, words_of
from diet_lightning.errors import DataError
from diet_lightning.utilities.text import decodable, first_few

YEAR = r"(?:19|20)\d\d"
SEASON = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?|q[1-4]|spring|summer|autumn|fall|winter)"
)
DATE = re.compile(
    rf"(?:photos from )?{YEAR}|{YEAR}[-_. ]?(?:0?[1-9]|1[0-2])(?:[-_. ]?(?:[0-2]?\d|3[01]))?|(?:\d\d?[-_. ])?\d\d?[-_. ]{YEAR}"
    rf"|(?:\d\d?[-_. ]*)?{SEASON}[-_., ]*(?:\d\d?[-_., ]+)?{YEAR}|{YEAR}[-_., ]*{SEASON}(?:[-_., ]*\d\d?)?",
    re.IGNORECASE,
)
# words in the names of folders of pictures beside folders of pictures that describe them
PICTURES = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos", "pictures"})
DESCRIPTIONS = frozenset(
    {"ann", "annotation", "annotations", "gt", "groundtruth", "label", "labels", "mask", "masks", "segmentation"}
    | {"segmentations"}
)


@dataclass(frozen=True)
class Layout:
    """The splits of a folder, and what was decided.

    Attributes:
        splits: ``train``, and ``val`` and ``test`` where they exist → files.
        notes: One sentence for each decision.
        left_out: One sentence for each group of images that belongs to no split.
    """

    splits: dict[str, LabelledFiles]
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


class Choice(NamedTuple):
    """Whether the folders of a tree are classes, and if not, why."""

    are_classes: bool
    why: str = ""


def folder_layout(listing: Listing, layout: str) -> Layout:
    """Decides what the folders below a folder mean.

    Args:
        listing: The images.
        layout: ``auto``, ``classes``, ``flat`` or ``splits``, see `ReadConfig`.

    Raises:
        DataError: If there are no images, or the folders may mean several things.
    """
    root = Tree(listing)
    if not listing.paths:
        raise DataError(root.no_images())
    if layout == "flat":
        return Layout({"train": root.files(False)}, [_flat_note(root, Choice(False, "read.layout is flat"), "set")])
    if layout == "classes":
        if not root.filled:
            raise DataError(
                f"Expected class folders below '{root.name}', since read.layout is classes, but all images lie right in it: "
                "set read.layout to auto to read them without labels."
            )
        return _one_split(root, _entered(root, leaves=False), Choice(True))
    tree = root
    while not (found := _split_folders(tree, layout)) and (inner := _only_folder(tree)):
        tree = tree.child(inner)
    if found:
        return _splits(root, tree, found, layout)
    if layout == "splits":
        raise DataError(
            f"Expected folders such as train, val and test below '{root.name}', since read.layout is splits, but got "
            f"[{first_few(sorted(root.tops))}]: rename them, or set read.layout to auto."
        )
    return _one_split(root, tree, _choice(tree))


def _only_folder(tree: Tree) -> str | None:
    """The folder right below a tree that holds all of its images."""
    return tree.filled[0] if not tree.loose and len(tree.filled) == 1 else None


def _entered(tree: Tree, leaves: bool = True, names_of_classes: Collection[str] = ()) -> Tree:
    """Goes down while all images lie below one folder.

    Args:
        tree: Where to begin.
        leaves: Also enter a folder that holds images itself.
        names_of_classes: Folders that are classes in another split, in lower case; they are not entered.
    """
    while (inner := _only_folder(tree)) and inner.casefold() not in names_of_classes:
        if not leaves and tree.child(inner).loose:
            break
        tree = tree.child(inner)
    return tree


def _choice(tree: Tree) -> Choice:
    """Whether the folders right below a tree are classes: if each has its images in the same place."""
    filled = [parts for parts, count in tree.counts.items() if count]
    if filled == [()]:
        return Choice(False, "they lie in no folders below it")
    for parts, names in tree.children.items():
        folder = Tree(tree.listing, (*tree.parts, *parts))
        _check_masks(folder, names)
        _check_inner_splits(folder, names)
    if () in filled:
        return Choice(False, "they lie right in it and in folders below it")
    around = Path(tree.name).resolve().name  # of 2021/05, 2021/06 the year
    if all(DATE.fullmatch(name) or DATE.fullmatch(f"{around}-{name}") for name in tree.filled):
        return Choice(False, f"its folders are named after dates ({first_few(tree.filled)})")
    if len({parts[1:] for parts in filled}) > 1:
        deepest = "/".join(sorted(filled, key=len)[-1])
        return Choice(False, f"its folders hold folders with images, such as {decodable(deepest)!r}")
    return Choice(True)


def _check_masks(tree: Tree, names: list[str]) -> None:
    """Raises an error where folders of images and of masks may lie beside each other."""
    words = {name: {*words_of(name), re.sub(r"[\W_]+", "", name.lower())} for name in names}
    descriptions = [name for name in names if words[name] & DESCRIPTIONS]
    pictures = [name for name in names if words[name] & PICTURES and name not in descriptions]
    if pictures and descriptions:
        raise DataError(
            f"Source folder '{tree.name}' holds '{pictures[0]}' beside '{descriptions[0]}', which may hold masks: write "
            f"folder:{tree.child(pictures[0]).name}, or set read.layout to classes or flat to train on all of them."
        )


def _check_inner_splits(tree: Tree, names: list[str]) -> None:
    """Raises an error where a folder inside the training images has splits of its own."""
    splits = {name: split for name in names if (split := split_of(name))}
    if "train" in splits.values() and len({*splits.values()}) > 1:
        raise DataError(
            f"Folder '{tree.name}' holds {_listed([*splits])}, which may be splits inside a class or a data set of several: "
            f"write folder:{tree.name} to read this folder alone, put the folders of splits above those of the classes, or "
            "set read.layout to classes or flat to train on all of them."
        )


def _one_split(root: Tree, tree: Tree, choice: Choice) -> Layout:
    files = tree.files(choice.are_classes)
    return Layout(
        {"train": files}, [*_entered_note(root, tree), *_meaning_notes(tree, choice, {"train": files}, "set")]
    )


def _entered_note(outer: Tree, inner: Tree) -> list[str]:
    if outer.parts == inner.parts:
        return []
    return [
        f"Entered '{inner.name}', the only folder with images in '{outer.name}'; if it is a class, put another class folder "
        "beside it."
    ]


def _meaning_notes(tree: Tree, choice: Choice, splits: dict[str, LabelledFiles], cure: str) -> list[str]:
    """What the folders of the training images were taken for, and which images of all splits have no label."""
    if not choice.are_classes:
        return [_flat_note(tree, choice, cure)]
    names = splits["train"].names
    notes = [
        f"Read the {len(names):,} folder(s) below '{tree.name}' as classes ({first_few(names)}); {cure} read.layout to flat if "
        "they are not classes."
    ]
    for split, files in splits.items():
        unlabelled = int((files.classes == NO_LABEL).sum())
        if unlabelled:
            notes.append(
                f"{unlabelled:,} of the {len(files.paths):,} images of the {split} split lie in no class folder and have no "
                "label; put them into folders named after their classes to give them one."
            )
    return notes


def _flat_note(tree: Tree, choice: Choice, cure: str) -> str:
    how = f"{cure} read.layout to classes to read each folder right below it as a class"
    if not tree.filled:
        how = "put them into class folders, or write csv:FILE with a table of paths and labels, to give them labels"
    count = sum(tree.counts.values())
    return f"Read the {count:,} images below '{tree.name}' without labels, since {choice.why}; {how}."


def _split_folders(tree: Tree, layout: str) -> dict[str, str]:
    """Split → the folder right below a tree that is named after it; empty without a folder for training.

    Raises:
        DataError: If two folders are named after one split, or only val and test have one, or names only look alike.
    """
    if layout == "splits":
        candidates = {name: split_of(name) or hinted_split(name) for name in tree.tops}
    else:
        candidates = {name: split_of(name) for name in tree.tops}
    folders: dict[str, list[str]] = {}
    for name, split in candidates.items():
        if split is not None:
            folders.setdefault(split, []).append(name)
    for split, names in folders.items():
        folders[split] = [name for name in names if tree.tops[name]] or names[:1]
        if len(folders[split]) > 1:
            raise DataError(
                f"Source folder '{tree.name}' holds the folders {_listed(folders[split])}, which are all named after the split {split}: "
                "rename all but one, or set read.layout to classes or flat."
            )
    if "train" in folders:
        return {split: folders[split][0] for split in SPLIT_NAMES if split in folders}
    filled = [name for names in folders.values() for name in names if tree.tops[name]]
    if filled:
        raise DataError(
            f"Source folder '{tree.name}' holds {_listed(filled)}, but no folder for training: name one 'train', write "
            f"folder:{tree.child(filled[0]).name} to train on one of them, or set read.layout to classes if they are classes "
            "or to flat to train on all images."
        )
    if layout == "auto":
        _check_hints(tree)
    return {}


def _check_hints(tree: Tree) -> None:
    """Raises an error where names such as ``seg_train`` and ``seg_test`` may be splits."""
    hints = {name: hinted_split(name) for name in tree.filled}
    if "train" in hints.values() and len({*hints.values()} - {None}) > 1:
        names = [name for name, split in hints.items() if split]
        raise DataError(
            f"Source folder '{tree.name}' holds {_listed(names)}, which may be splits or classes: rename them to train, val and "
            "test or set read.layout to splits, or set it to classes or flat if they are not splits."
        )


def _splits(root: Tree, tree: Tree, folders: dict[str, str], layout: str) -> Layout:
    """The splits, all read as classes or all without labels, as the training split is."""
    others = [name for name in tree.filled if name not in folders.values()]
    if others and layout == "auto":
        raise DataError(
            f"Source folder '{tree.name}' holds {_listed([folders['train']])} beside {_listed(others)}: splits, or classes? Put "
            "all class folders into one named 'train', or set read.layout to splits to leave the others out, or to classes "
            "or flat."
        )
    left_out = []
    if count := sum(tree.tops[name] for name in others) + tree.loose:
        where = " and ".join([_listed(others)] * bool(others) + ["the folder itself"] * bool(tree.loose))
        left_out.append(
            f"Left out {count:,} image(s) of '{tree.name}' that lie beside its splits, in {where}; set read.layout to flat to "
            "read all."
        )
    trees = {split: tree.child(name) for split, name in folders.items()}
    for each in trees.values():
        if not sum(each.counts.values()):
            raise DataError(each.no_images())
    deepest = [_entered(each) for each in trees.values()]
    classes = {name.casefold() for each in deepest if len(each.filled) > 1 for name in each.filled}
    inner = {split: _entered(each, names_of_classes=classes) for split, each in trees.items()}
    choice = _choice(inner["train"])
    splits = {split: each.files(choice.are_classes) for split, each in inner.items()}
    cure = f"write folder:{inner['train'].name} and set"
    notes = [*_entered_note(root, tree)]
    named = ", ".join(f"'{name}' as {split}" for split, name in folders.items())
    notes.append(
        f"Read the folders of '{tree.name}' as splits: {named}; set read.layout to classes or flat if they are not."
    )
    for split, each in trees.items():
        notes += _entered_note(each, inner[split])
        if not choice.are_classes and _choice(inner[split]).are_classes:
            notes.append(
                f"The folders of the {split} split ({first_few(inner[split].filled)}) look like classes, but its images are read "
                "without labels, as the training images are; put those into class folders too, or write csv:FILE with a table of "
                "paths, labels and splits."
            )
    return Layout(splits, [*notes, *_meaning_notes(inner["train"], choice, splits, cure)], left_out)


def _listed(names: list[str]) -> str:
    return first_few(repr(decodable(name)) for name in names)
