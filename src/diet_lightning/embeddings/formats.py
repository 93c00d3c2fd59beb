"""Files of embeddings, which are mapped from the disk when they are read, if the format allows."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from diet_lightning.errors import ConfigurationError, DataError, first_line

Array = NDArray[Any]
ROWS = 4096  # rows of a row group of .parquet
CLASS_NAMES = "class_names"
PATH_ENDS = "path_ends"  # safetensors stores no strings: path i is the bytes of `path` from ends[i - 1] to ends[i]


@dataclass(frozen=True)
class Embeddings:
    """The contents of a file of `EmbeddingWriter`, one row per sample, in the order of the index.

    Attributes:
        features: float32, shape ``(N, K)``.
        index: Index of each sample in its split, int64, shape ``(N,)``, ascending.
        label: The label, int64, shape ``(N,)``, -1 for samples without one.
        path: Name of each sample, such as the path of its file below the source's folder, strings, shape ``(N,)``; None for
            samples without names.
        class_names: Names of the labels, strings, shape ``(C,)``; None for labels without names.
    """

    features: NDArray[np.float32]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    path: NDArray[np.str_] | None = None
    class_names: NDArray[np.str_] | None = None


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads a file of `EmbeddingWriter`, without running code.

    The features in ``.npz`` and ``.safetensors`` stay on the disk and are mapped into memory, read-only: a slice reads only
    its rows. Those in ``.parquet`` are read into memory.

    Args:
        path: The file: ``.npz``, ``.parquet`` or ``.safetensors``.

    Returns:
        The embeddings.

    Raises:
        ConfigurationError: If the suffix is unknown, or pyarrow is missing.
        DataError: If the file is missing or damaged, or its arrays are not those of `Embeddings`.
    """
    file = Path(path)
    check_format(file)
    if not file.is_file():
        raise DataError(f"Embeddings '{path}' do not exist: give the path of a file that `diet predict` wrote.")
    try:
        arrays = FORMATS[file.suffix][1](file)
        _check(arrays)
    except Exception as error:  # each library raises many kinds of errors for a damaged file
        raise DataError(
            f"Embeddings '{path}' cannot be read ({first_line(error)}): "
            "the file is damaged, or was not written by EmbeddingWriter; run `diet predict` again."
        ) from error
    return Embeddings(**{name: arrays.get(name) for name in ("features", "index", "label", "path", CLASS_NAMES)})  # type: ignore[arg-type]


def _check(arrays: Mapping[str, Array]) -> None:
    for name, kind, ndim in (("features", "f", 2), ("index", "i", 1), ("label", "i", 1), ("path", "U", 1)):
        if name in arrays:
            array = arrays[name]
            if array.dtype.kind != kind or array.ndim != ndim or len(array) != len(arrays["features"]):
                raise ValueError(f"'{name}' is {array.dtype} of shape {array.shape}")
        elif name != "path":
            raise ValueError(f"array '{name}' is missing")
    if CLASS_NAMES in arrays and (arrays[CLASS_NAMES].dtype.kind != "U" or arrays[CLASS_NAMES].ndim != 1):
        raise ValueError(f"'{CLASS_NAMES}' is {arrays[CLASS_NAMES].dtype} of shape {arrays[CLASS_NAMES].shape}")


def check_format(file: Path) -> None:
    """Raises a `ConfigurationError` if the suffix of a file names no format, or the library of its format is missing."""
    if file.suffix not in FORMATS:
        raise ConfigurationError(
            f"Expected a file of embeddings to end in one of {list(FORMATS)}, but got '{file}': the suffix determines the format."
        )
    if file.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                f"Embeddings in '{file}' need the pyarrow package: pip install 'diet-lightning[parquet]'."
            ) from error


def write_arrays(file: Path, arrays: Mapping[str, Array]) -> None:
    """Writes the arrays of `Embeddings` in the format of a file's suffix, the same bytes for the same arrays.

    Mapped arrays are not read into memory.

    Raises:
        OSError: If the file cannot be written; `safetensors.SafetensorError` from that library.
    """
    FORMATS[file.suffix][0](file, arrays)


def _write_npz(file: Path, arrays: Mapping[str, Array]) -> None:
    # in this order the headers before the features take a multiple of 4 bytes; numpy copies mapped arrays that are not aligned
    names = ("index", "label", "features", "path", CLASS_NAMES)
    ordered: Any = {name: arrays[name] for name in names if name in arrays}
    np.savez(file, **ordered)


def _read_npz(file: Path) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        return {member.filename.removesuffix(".npy"): _member(file, archive, member) for member in archive.infolist()}


def _member(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """An array; features are mapped if they are stored uncompressed, since `np.load` maps no array of an archive."""
    with archive.open(member) as stream:
        is_mapped = member.filename == "features.npy" and member.compress_type == zipfile.ZIP_STORED
        if is_mapped and npy.read_magic(stream) == (1, 0):
            shape, is_fortran, dtype = npy.read_array_header_1_0(stream)
            with file.open("rb") as raw:  # after 30 bytes and two fields, whose lengths end the 30
                raw.seek(member.header_offset + 26)
                start = member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4))) + stream.tell()
            if not dtype.hasobject:
                return np.memmap(file, dtype, "r", start, shape, "F" if is_fortran else "C")
    with archive.open(member) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        return array


def _write_safetensors(file: Path, arrays: Mapping[str, Array]) -> None:
    arrays = dict(arrays)
    classes = arrays.pop(CLASS_NAMES, None)
    if "path" in arrays:
        names = [name.encode() for name in arrays["path"].tolist()]
        arrays["path"] = np.frombuffer(b"".join(names), np.uint8)
        arrays[PATH_ENDS] = np.cumsum([len(name) for name in names], dtype=np.int64)
    save_file(arrays, file, None if classes is None else {CLASS_NAMES: json.dumps(classes.tolist())})


def _read_safetensors(file: Path) -> dict[str, Array]:
    with safe_open(file, "pt") as opened:  # the library copies numpy arrays and maps PyTorch tensors
        arrays: dict[str, Array] = {name: opened.get_tensor(name).numpy() for name in opened.keys()}  # noqa: SIM118
        if CLASS_NAMES in (metadata := opened.metadata() or {}):
            arrays[CLASS_NAMES] = np.array(json.loads(metadata[CLASS_NAMES]), np.str_)
    if "path" in arrays:
        text, ends = arrays["path"].tobytes(), arrays.pop(PATH_ENDS).tolist()
        arrays["path"] = np.array(
            [text[start:end].decode() for start, end in zip([0, *ends[:-1]], ends, strict=True)], np.str_
        )
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _write_parquet(file: Path, arrays: Mapping[str, Array]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = dict(arrays)
    classes = arrays.pop(CLASS_NAMES, None)
    values = pa.array(arrays["features"].reshape(-1))  # not copied
    features = pa.FixedSizeListArray.from_arrays(values, arrays["features"].shape[1])
    table = pa.table({**arrays, "features": features})
    if classes is not None:
        table = table.replace_schema_metadata({CLASS_NAMES: json.dumps(classes.tolist())})
    pq.write_table(table, file, row_group_size=ROWS, use_dictionary=False)


def _read_parquet(file: Path) -> dict[str, Array]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        schema, count, start = opened.schema_arrow, opened.metadata.num_rows, 0
        rest = opened.read([name for name in ("index", "label", "path") if name in schema.names])
        arrays: dict[str, Array] = {name: rest[name].to_numpy() for name in rest.column_names}
        arrays["features"] = np.empty((count, schema.field("features").type.list_size), np.float32)
        for batch in opened.iter_batches(ROWS, columns=["features"]):  # a table in memory would be a second copy
            rows = batch["features"].flatten().to_numpy().reshape(len(batch), -1)
            arrays["features"][start : start + len(rows)] = rows
            start += len(rows)
    if "path" in arrays:
        arrays["path"] = arrays["path"].astype(np.str_)
    if CLASS_NAMES.encode() in (metadata := schema.metadata or {}):
        arrays[CLASS_NAMES] = np.array(json.loads(metadata[CLASS_NAMES.encode()]), np.str_)
    return arrays


FORMATS: dict[str, tuple[Callable[[Path, Mapping[str, Array]], None], Callable[[Path], dict[str, Array]]]] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
    ".safetensors": (_write_safetensors, _read_safetensors),
}
