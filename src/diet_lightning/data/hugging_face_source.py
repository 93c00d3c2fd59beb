"""``hf:NAME`` and ``hf:parquet:PATH``: image sets of the Hugging Face Hub, and parquet files."""

from __future__ import annotations

import glob
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from diet_lightning.data.adapters import INPUT_KEYS, LABEL_KEYS
from diet_lightning.data.digest_store import kept_digests
from diet_lightning.data.fingerprint import UNREADABLE, computed_digests, content_digest, file_digests, file_stamps
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.metadata import to_label
from diet_lightning.data.source import Source, SourceOptions
from diet_lightning.data.split_names import SPLIT_NAMES
from diet_lightning.errors import ConfigurationError, DataError


class _HuggingFaceItems(Dataset[tuple[Any, int | None]]):
    """A split of a Hugging Face data set as ``(image, label)``."""

    def __init__(self, split: Any, image: str, label: str | None) -> None:
        self.split, self.image, self.label = split, image, label

    @property
    def labels(self) -> Sequence[int] | None:
        """The label column."""
        return None if self.label is None else [to_label(value) for value in self.split[self.label]]

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
        row = self.split[int(index)]
        stored = row[self.image]  # not decoded: {"bytes": …, "path": …}
        image = stored["path"] if stored["bytes"] is None else BytesIO(stored["bytes"])
        return image, None if self.label is None else row[self.label]


def hugging_face_source(name: str, options: SourceOptions) -> Source:
    """A Hugging Face data set of images, on the hub or as parquet files."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigurationError(
            f"Source 'hf:{name}' needs the datasets package: pip install 'diet-lightning[hf]'."
        ) from error
    arguments: dict[str, Any] = {"path": name}
    if name.startswith("parquet:"):
        arguments = {"path": "parquet", "data_files": _parquet_files(name.removeprefix("parquet:"))}
    try:
        splits = datasets.load_dataset(**arguments, cache_dir=options.root)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"Source 'hf:{name}' cannot be loaded: {str(error).splitlines()[0]}.") from error

    def split(part: str) -> ImageDataset | None:
        found = next((splits[alias] for alias in SPLIT_NAMES[part] if alias in splits), None)
        if found is None:
            return None
        image = next((key for key, kind in found.features.items() if isinstance(kind, datasets.Image)), None)
        image = image or next((key for key in INPUT_KEYS if key in found.features), None)
        if image is None:
            raise DataError(f"Source 'hf:{name}' has the columns {sorted(found.features)}, but no column of images.")
        try:
            found = found.cast_column(image, datasets.Image(decode=False))
        except (ValueError, TypeError, NotImplementedError) as error:
            raise DataError(f"Column {image!r} of source 'hf:{name}' holds no images: {error}.") from error
        label = next((key for key, kind in found.features.items() if isinstance(kind, datasets.ClassLabel)), None)
        label = label or next((key for key in LABEL_KEYS if key in found.features), None)
        return ImageDataset(_HuggingFaceItems(found, image, label), options.image_size, options.read)

    train = split("train")
    if train is None:
        raise DataError(f"Source 'hf:{name}' has the splits {sorted(splits)}, but none called 'train'.")
    kind = train.items.split.features.get(train.items.label)
    names = kind.names if isinstance(kind, datasets.ClassLabel) else None
    return Source(train, split("val"), split("test"), names)


def _parquet_files(path: str) -> dict[str, list[str]]:
    """The parquet files of a folder by split, judged by their names; a single file is all for training."""
    root = Path(path).expanduser()
    if root.is_file():
        return {"train": [glob.escape(str(root))]}
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    parts: dict[str, list[str]] = {}
    for file in files:
        for part, names in SPLIT_NAMES.items():
            if (
                file.relative_to(root)
                .as_posix()
                .lower()
                .startswith(tuple(f"{prefix}{name}" for name in names for prefix in ("", "data/")))
            ):
                parts.setdefault("validation" if part == "val" else part, []).append(glob.escape(str(file)))
    if "train" not in parts:
        raise DataError(
            f"Source 'hf:parquet:{path}' has no training file: expected a .parquet file, or a folder with files named "
            "train*.parquet, and validation*.parquet or test*.parquet if there are any."
        )
    return parts
