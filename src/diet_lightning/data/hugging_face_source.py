"""``hf:NAME`` and ``hf:parquet:PATH``: image sets of the Hugging Face Hub, and parquet files."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from diet_lightning.data.batch import NO_LABEL
from diet_lightning.data.columns import choose_columns, is_image, join_names
from diet_lightning.data.digest_store import kept_digests
from diet_lightning.data.fingerprint import UNREADABLE, computed_digests, content_digest, file_digests, file_stamps
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.labels import encode_labels
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.split_names import SPLIT_NAMES, split_of
from diet_lightning.errors import ConfigurationError, DataError


class _HuggingFaceItems(Dataset[tuple[Any, int | None]]):
    """A split of a Hugging Face data set as ``(image, label)``."""

    def __init__(self, split: Any, image: str, labels: Tensor | None) -> None:
        self.split, self.image, self.labels = split.select_columns([image]), image, labels

    @property
    def names(self) -> list[str | None]:
        """Names of the image files, None for images without one."""
        # the stored column, since reading a row decodes its image
        return [name for part in self.split.data.column(self.image).chunks for name in part.field("path").to_pylist()]

    def sample_digests(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Digests of the stored images, of those that are kept in other files of these, shape ``(n, 16)``."""
        column = self.split.data.column(self.image)

        def stored_digest(n: int) -> bytes:
            stored = column[n].as_py() or {}
            return content_digest(stored["bytes"]) if stored.get("bytes") is not None else UNREADABLE

        files, read_at = [each["filename"] for each in self.split.cache_files], time.time_ns()
        stamps = file_stamps(files)  # of the whole table: any change of it is a change of each row
        stamp = [stamps[:, 0].sum(), *stamps[:, 1:].max(axis=0, initial=read_at if not files else 0)]
        rows = np.asarray(indices, np.uint64)
        digests = kept_digests(
            "\n".join([*files, self.image]),
            rows,
            np.tile(np.array(stamp, np.int64), (len(rows), 1)),
            read_at,
            lambda at: computed_digests(lambda n: stored_digest(int(rows[at[n]])), len(at), "hashing images"),
        )
        elsewhere = np.flatnonzero(~digests.any(axis=1))
        paths = [(column[int(rows[n])].as_py() or {}).get("path") or "" for n in elsewhere]
        if len(paths):
            digests[elsewhere] = file_digests(paths, Path(paths[0]).parent)
        return digests

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        stored = self.split[int(index)][self.image]  # not decoded: {"bytes": …, "path": …}
        image = stored["path"] if stored["bytes"] is None else BytesIO(stored["bytes"])
        return image, None if self.labels is None else int(self.labels[index])


def hugging_face_source(name: str, options: SourceOptions) -> Source:
    """A Hugging Face data set of images, on the hub or as parquet files."""
    owner = f"source 'hf:{name}'"
    notes: list[str] = []
    loaded = {part: _flattened(split) for part, split in _load(name, options, notes).items()}
    image, label, chosen = choose_columns(loaded["train"].features, options.read, owner)
    notes += chosen
    columns = {
        part: split.data.column(label).to_pylist() if label in split.features else None
        for part, split in loaded.items()
    }
    names = {part: getattr(split.features.get(label), "names", None) for part, split in loaded.items()}
    encoded = encode_labels(*join_names(columns, names))

    def opened(part: str, split: Any) -> ImageDataset:
        labels = encoded.labels[part]
        if labels is None and label is not None:
            labels = torch.full((len(split),), NO_LABEL)
        items = _HuggingFaceItems(_with_images(split, image, f"{part} split of {owner}"), image, labels)
        return ImageDataset(items, options.image_size, options.read)

    splits: dict[str, Any] = {part: opened(part, split) for part, split in loaded.items()}
    return Source(**splits, class_names=encoded.class_names, notes=[*notes, *encoded.notes])


def _load(name: str, options: SourceOptions, notes: list[str]) -> dict[str, Any]:
    """The splits by our names."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigurationError(
            f"Source 'hf:{name}' needs the datasets package: pip install 'diet-lightning[hf]'."
        ) from error
    try:
        if (Path(name).expanduser() / "state.json").is_file():  # written by `save_to_disk`
            return {"train": datasets.load_from_disk(str(Path(name).expanduser()))}
        if not name.startswith("parquet:"):
            return _our_splits(name, datasets.load_dataset(name, cache_dir=options.root), notes)
        # one by one, as the test split may lack columns, such as that of the labels
        return {
            part: datasets.load_dataset("parquet", data_files={part: files}, split=part, cache_dir=options.root)
            for part, files in _parquet_files(name.removeprefix("parquet:"), notes).items()
        }
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"Source 'hf:{name}' cannot be loaded: {said}.") from error


def _our_splits(name: str, found: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The splits that are called train, val and test in one of the usual ways."""
    usual = [name for names in SPLIT_NAMES.values() for name in names]
    named = sorted(found, key=lambda split: usual.index(split.lower()) if split.lower() in usual else len(usual))
    ours: dict[str, str] = {}
    for split in named:
        if part := split_of(split):
            ours.setdefault(part, split)
    if "train" not in ours:
        raise DataError(
            f"Source 'hf:{name}' has the splits {sorted(found)}, but none called 'train': name the one to train on in Python, "
            f"DIETDataModule.from_datasets(datasets.load_dataset({name!r}, split={next(iter(found))!r}))."
        )
    if others := sorted(set(found) - set(ours.values())):
        notes.append(f"Splits {others} are left out: {sorted(ours.values())} are read.")
    return {part: found[split] for part, split in ours.items()}


def _flattened(split: Any) -> Any:
    """A split with nested columns as columns called ``outer.inner``, and with images that lack their type as images."""
    import datasets

    while True:
        for column, kind in split.features.items():
            if is_image(kind) and not isinstance(kind, datasets.Image):
                split = split.cast_column(column, datasets.Image())
        if not any(isinstance(kind, dict) for kind in split.features.values()):
            return split
        split = split.flatten(max_depth=2)  # one level, else an image without its type falls into its fields


def _with_images(split: Any, column: str, owner: str) -> Any:
    """A split whose column of files, bytes or paths has the type of images that are not decoded."""
    import datasets

    if column not in split.features:
        raise DataError(f"The {owner} has the columns {sorted(split.features)}, but none called {column!r}.")
    try:
        return split.cast_column(column, datasets.Image(decode=False))
    except (ValueError, TypeError, NotImplementedError) as error:
        held = (
            f"lists, such as {split[0][column]!r:.60}" if isinstance(split[0][column], list) else f"no images: {error}"
        )
        raise DataError(
            f"Column {column!r} of the {owner} holds {held}: set `read.image_column` to a column with one image per row."
        ) from error


def _parquet_files(path: str, notes: list[str]) -> dict[str, list[str]]:
    """The parquet files of a folder by split, judged by their names; a single file is all for training."""
    root = Path(path).expanduser()
    if root.is_file():
        return {"train": [glob.escape(str(root))]}
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    parts: dict[str, list[str]] = {}
    left_out = []
    for file in files:
        name = file.relative_to(root).as_posix()
        word = re.match(r"(?:data/)?([a-z]*)", name, re.IGNORECASE)  # the first of the path below the folder
        part = split_of(word[1]) if word else None
        if part is None:
            left_out.append(name)
        else:
            parts.setdefault(part, []).append(glob.escape(str(file)))
    if "train" not in parts:
        raise DataError(
            f"Source 'hf:parquet:{path}' has no training file: expected a .parquet file, or a folder with files named "
            "train*.parquet, and validation*.parquet or test*.parquet if there are any."
        )
    if left_out:
        notes.append(
            f"{len(left_out)} parquet file(s) are left out, such as {left_out[0]}: names begin with train, validation or test."
        )
    return parts
