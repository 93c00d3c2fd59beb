"""The images of a listing below one of its folders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.labelled_files import LabelledFiles
from diet_lightning.data.listing import Listing
from diet_lightning.errors import DataError
from diet_lightning.utilities.text import decodable


@dataclass(frozen=True)
class Tree:
    """The files of a listing below one of its folders, given by its components."""

    listing: Listing
    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Path of the folder, for messages."""
        return decodable(str(Path(self.listing.root, *self.parts)))

    def child(self, name: str) -> Tree:
        """The files below a folder of the folder."""
        return Tree(self.listing, (*self.parts, name))

    @cached_property
    def counts(self) -> dict[tuple[str, ...], int]:
        """Components below this folder → number of images, of all folders, with images or without."""
        depth = len(self.parts)
        folders = zip(self.listing.folders, self.listing.counts.tolist(), strict=True)
        return {parts[depth:]: count for parts, count in folders if parts[:depth] == self.parts}

    @cached_property
    def tops(self) -> dict[str, int]:
        """Folder right below this one → number of images in it and below it, images or not."""
        totals: dict[str, int] = {}
        for parts, count in self.counts.items():
            if parts:
                totals[parts[0]] = totals.get(parts[0], 0) + count
        return totals

    @cached_property
    def children(self) -> dict[tuple[str, ...], list[str]]:
        """Components below this folder → names of the folders right below that folder which hold images in or below them."""
        found: dict[tuple[str, ...], dict[str, None]] = {}
        for parts, count in self.counts.items():
            for depth in range(len(parts) if count else 0):
                found.setdefault(parts[:depth], {})[parts[depth]] = None
        return {parts: list(names) for parts, names in found.items()}

    @property
    def filled(self) -> list[str]:
        """The folders right below this one that hold images."""
        return [name for name, count in self.tops.items() if count]

    @property
    def loose(self) -> int:
        """Number of images right in the folder."""
        return self.counts.get((), 0)

    def files(self, are_classes: bool) -> LabelledFiles:
        """The images, with the folder right below this one as their class, or without classes.

        Raises:
            DataError: If there are none.
        """
        depth, listing = len(self.parts), self.listing
        names = sorted(map(decodable, self.filled)) if are_classes else []
        number = {name: n for n, name in enumerate(names)}
        outside = NO_LABEL - 1
        class_of = np.full(len(listing.folders), outside)
        for position, parts in enumerate(listing.folders):
            if parts[:depth] == self.parts:
                class_of[position] = number.get(decodable(parts[depth]), NO_LABEL) if len(parts) > depth else NO_LABEL
        classes = class_of[listing.folder_of]
        rows = np.flatnonzero(classes != outside)
        if not len(rows):
            raise DataError(self.no_images())
        files = LabelledFiles(listing.paths, classes, names, listing.stamps)
        return files if len(rows) == len(classes) else files.at(rows)

    def no_images(self) -> str:
        """Text of the error for a folder without images."""
        cure = ": expected files such as .jpg or .png in it or below it."
        if any(Path(self.listing.root, *self.parts).glob("*-idx3-ubyte*")):
            cure = (
                ", but IDX files as MNIST has: unpack them (gunzip) into ROOT/MNIST/raw and write torchvision:MNIST with root=ROOT; "
                "FashionMNIST and KMNIST likewise."
            )
        note = self.listing.note
        return f"Source folder '{self.name}' holds no images{cure}" + (f" {note}" if note else "")
