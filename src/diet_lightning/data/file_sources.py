"""``folder:PATH`` and ``npz:FILE``: the user's own images and arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from diet_lightning.data.archive_layouts import archive_layout
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.image_files import ImageFileDataset, ImageFiles
from diet_lightning.data.labelled_files import LabelledFiles, number_classes
from diet_lightning.data.labels import encode_labels
from diet_lightning.data.layouts import folder_layout
from diet_lightning.data.listing import list_images
from diet_lightning.data.path_hints import what_is_wrong
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.split_names import SPLIT_NAMES
from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import native
from diet_lightning.utilities.text import decodable


def folder_source(path: str, options: SourceOptions) -> Source:
    """A folder of images: split folders, class folders, flat and unlabelled, or as a known archive unpacks."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"Source folder {path!r} {what_is_wrong(root, 'a folder of images')}")
    listing = list_images(root)
    archive = archive_layout(listing) if options.read.layout == "auto" else None
    layout = archive or folder_layout(listing, options.read.layout)
    if options.read.strict and (layout.left_out or listing.may_miss_images):
        said = [*([listing.note] if listing.note and listing.may_miss_images else []), *layout.left_out]
        raise DataError(f"{' '.join(said)} Move these files away, or set read.strict to false to train without them.")
    notes = [*layout.notes, *layout.left_out, *([listing.note] if listing.note else [])]
    return image_file_source(layout.splits, listing.root, notes, options)


def image_file_source(
    splits: dict[str, LabelledFiles], root: str, notes: Sequence[str], options: SourceOptions, by_number: bool = False
) -> Source:
    """Opens the image files of the splits; holds out a fraction for validation where no other split has labels.

    Args:
        splits: ``train``, and ``val`` and ``test`` where they exist.
        root: Folder to which the names of the images are relative.
        notes: What was decided so far.
        options: Options of reading.
        by_number: Whether the names of the classes are integers, in whose order labels are numbered.
    """
    numbered = number_classes(splits, by_number)
    notes = [*notes, *numbered.notes]
    paths = {split: files.paths for split, files in splits.items()}
    labels = dict(numbered.labels)
    is_measured = "val" in splits or ("test" in labels and bool((labels["test"] != NO_LABEL).any()))
    if not is_measured and bool((labels["train"] != NO_LABEL).any()) and options.holdout > 0.0:
        count = len(paths["train"])
        held = min(round(options.holdout * count), max(0, count - 2))  # DIET needs at least two samples
        if held:
            order = np.random.default_rng(options.seed).permutation(count)
            for split, rows in {"val": np.sort(order[:held]), "train": np.sort(order[held:])}.items():
                paths[split] = [splits["train"].paths[n] for n in rows.tolist()]
                labels[split] = numbered.labels["train"][rows]
            notes.append(
                f"Held out {held:,} of the {count:,} images ({held / count:.0%}) for validation; set holdout to 0 to train on all."
            )
    data = {
        split: ImageFileDataset(ImageFiles(paths[split], labels[split], root), options.image_size, options.read)
        for split in paths
    }
    notes = [decodable(note) for note in notes]
    return Source(data["train"], data.get("val"), data.get("test"), numbered.names or None, notes=notes)


def npz_source(path: str, options: SourceOptions) -> Source:
    """Arrays under MedMNIST's keys: ``train_images``, ``train_labels``, and the same for val and test."""
    file = Path(path).expanduser()
    if not zipfile.is_zipfile(file):
        wrong = what_is_wrong(file, "an .npz file")
        if file.is_file() and file.suffix.lower() in ("", ".npz", ".npy"):
            wrong = "is another file: write one by numpy.savez(FILE, train_images=…, train_labels=…)."
        raise DataError(f"Source file {path!r} cannot be read as an .npz of plain arrays: it {wrong}")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"Source file {path!r} cannot be read as an .npz of plain arrays: {error}.") from error
    if "train_images" not in arrays:
        raise DataError(
            f"Source file {path!r} has the keys {sorted(arrays)}, but no 'train_images': expected MedMNIST's key names, "
            "train_images, train_labels, val_images, …"
        )
    splits = {}
    encoded = encode_labels({part: arrays.get(f"{part}_labels") for part in SPLIT_NAMES})
    for part in SPLIT_NAMES:
        if f"{part}_images" in arrays:
            inputs = arrays[f"{part}_images"]
            if inputs.dtype.kind not in "iufb" or inputs.ndim < 2:
                raise DataError(
                    f"Expected '{part}_images' of {path!r} to hold numbers, one row or image per sample, but got "
                    f"{inputs.dtype} of shape {inputs.shape}."
                )
            data = ArrayDataset(torch.from_numpy(native(inputs)), encoded.labels[part])
            if part != "train" and data.inputs.ndim == 4 and data.inputs.is_floating_point():
                _check_finite(data, f"'{part}_images' of {path!r}")
            splits[part] = data
    return Source(splits["train"], splits.get("val"), splits.get("test"), encoded.class_names, notes=encoded.notes)


def _check_finite(data: ArrayDataset, name: str) -> None:
    """Raises an error that names the array and the first sample with a value that is not finite."""
    try:
        data.extremes()
    except DataError as error:
        raise DataError(f"Array {name}: {error}") from error
