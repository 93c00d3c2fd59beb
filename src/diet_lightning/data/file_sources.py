"""``folder:PATH`` and ``npz:FILE``: the user's own images and arrays."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from diet_lightning.data.archive_layouts import archive_layout
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.image_files import ImageFileDataset, ImageFiles
from diet_lightning.data.labelled_files import number_classes
from diet_lightning.data.labels import encode_labels
from diet_lightning.data.layouts import folder_layout
from diet_lightning.data.listing import list_images
from diet_lightning.data.path_hints import require_folder, what_is_wrong
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.split_names import SPLIT_NAMES, split_of
from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import native
from diet_lightning.utilities.text import decodable

NPZ_KINDS = {  # last word of a key → what it holds
    **dict.fromkeys(("images", "image", "imgs", "img", "x"), "images"),
    **dict.fromkeys(("labels", "label", "targets", "target", "y"), "labels"),
}


def folder_source(path: str, options: SourceOptions) -> Source:
    """A folder of images: split folders, class folders, flat and unlabelled, or as a known archive unpacks."""
    listing = list_images(require_folder(path))
    archive = archive_layout(listing) if options.read.layout == "auto" else None
    layout = archive or folder_layout(listing, options.read.layout)
    if options.read.strict and (layout.left_out or listing.may_miss_images):
        said = [*([listing.note] if listing.note and listing.may_miss_images else []), *layout.left_out]
        raise DataError(f"{' '.join(said)} Move these files away, or set read.strict to false to train without them.")
    notes = [*layout.notes, *layout.left_out, *([listing.note] if listing.note else [])]
    encoded = number_classes(layout.splits)
    files = {
        split: ImageFiles(each.paths, encoded.labels[split], listing.root, each.stamps)
        for split, each in layout.splits.items()
    }
    return image_file_source(files, encoded.class_names, [*notes, *encoded.notes], options)


def image_file_source(
    files: Mapping[str, ImageFiles], class_names: Sequence[str] | None, notes: Sequence[str], options: SourceOptions
) -> Source:
    """Opens the image files of the splits; holds out a fraction for validation where no other split has labels.

    Args:
        files: Split → files: ``train``, and ``val`` and ``test`` where they exist.
        class_names: Names of the labels, or None.
        notes: What was decided so far.
        options: Options of reading.
    """
    files, notes = dict(files), list(notes)
    train, test = files["train"], files.get("test")
    is_measured = "val" in files or (test is not None and test.has_labels)
    if not is_measured and train.has_labels and options.holdout > 0.0:
        count = len(train)
        held = min(round(options.holdout * count), max(0, count - 2))  # DIET needs at least two samples
        if held:
            order = np.random.default_rng(options.seed).permutation(count)
            val, rest = (np.sort(rows).tolist() for rows in (order[:held], order[held:]))
            files |= {"val": train.at(val), "train": train.at(rest)}
            notes.append(
                f"Held out {held:,} of the {count:,} images ({held / count:.0%}) for validation; set holdout to 0 to train on all."
            )
    data = {split: ImageFileDataset(each, options.image_size, options.read) for split, each in files.items()}
    notes = [decodable(note) for note in notes]
    return Source(data["train"], data.get("val"), data.get("test"), class_names, notes=notes)


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
    roles, ignored = _roles(arrays, path)
    if "train_images" not in roles:
        raise DataError(
            f"Source file {path!r} has the keys {sorted(arrays)}, but no 'train_images': expected MedMNIST's key names, "
            "train_images, train_labels, val_images, …"
        )
    notes = [f"Key {key!r} is read as {role}." for role, key in roles.items() if key != role]
    if ignored:
        notes.append(
            f"Keys {ignored} are ignored: images and labels of splits are called train_images, train_labels, val_images, "
            "val_labels, test_images and test_labels."
        )
    arrays = {role: arrays[key] for role, key in roles.items()}
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
            splits[part] = ArrayDataset(torch.from_numpy(native(inputs)), encoded.labels[part])
    return Source(
        splits["train"], splits.get("val"), splits.get("test"), encoded.class_names, notes=[*notes, *encoded.notes]
    )


def _roles(keys: Iterable[str], path: str) -> tuple[dict[str, str], list[str]]:
    """MedMNIST's name → key of the file, which may spell it in another way; and the keys that are ignored.

    Raises:
        DataError: If two keys have the same meaning.
    """
    roles: dict[str, str] = {}
    ignored = []
    for key in sorted(keys):
        *before, last = re.split(r"[_\W]+", key.lower())
        part = split_of("_".join(before)) if before else "train"
        if part is None or last not in NPZ_KINDS:
            ignored.append(key)
            continue
        role = f"{part}_{NPZ_KINDS[last]}"
        if role in roles:
            raise DataError(
                f"Keys {roles[role]!r} and {key!r} of source file {path!r} both mean {role}: leave out one."
            )
        roles[role] = key
    alone = [role for role in roles if role.endswith("labels") and role.replace("labels", "images") not in roles]
    return {role: key for role, key in roles.items() if role not in alone}, [*ignored, *(roles[role] for role in alone)]
