"""Embeddings in a file, mapped from the disk when they are read, if the format allows."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diet_lightning.errors import ConfigurationError, DataError

Array = NDArray[Any]
ALIGNMENT = 64  # bytes; numpy copies a mapped array with another alignment before computing with it
ROWS = 4096  # bytes of a row group of .parquet
CLASS_NAMES = "class_names"
PATH_ENDS = "path_ends"  # safetensors knows no strings: path i is the bytes of `path` from ends[i - 1] to ends[i]


@dataclass(frozen=True)
class Embeddings:
    """The contents of a file of `EmbeddingWriter`, one row per sample, in the order of the index.

    Attributes:
        features: float32, shape ``(N, K)``.
        index: Index of each sample in its split, int64, shape ``(N,)``, ascending.
        label: The label, int64, shape ``(N,)``, -1 for samples without one.
        path: Name of each sample, strings, shape ``(N,)``: the path of its file below the source's folder; None for samples
            without names.
        class_names: Names of the labels, strings, shape ``(C,)``; None for labels without names.
    """

    features: NDArray[np.float32]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    path: NDArray[np.str_] | None = None
    class_names: NDArray[np.str_] | None = None


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads a file of `EmbeddingWriter`, without running code.

    Arrays of ``.npz`` and ``.safetensors`` stay on the disk and are mapped into memory, read-only: a slice reads only its rows.
    Those of ``.parquet`` are read into memory.

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
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        OverflowError,
        struct.error,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise DataError(
            f"Embeddings '{path}' cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "the file is damaged, or was not written by EmbeddingWriter; run `diet predict` again."
        ) from error
    return Embeddings(**{name: arrays.get(name) for name in ("features", "index", "label", "path", CLASS_NAMES)})  # type: ignore[arg-type]


def _check(arrays: Mapping[str, Array]) -> None:
    for name, kind, ndim in (("features", "f", 2), ("index", "i", 1), ("label", "i", 1), ("path", "U", 1)):
        if name not in arrays:
            if name == "path":
                continue
            raise ValueError(f"array '{name}' is missing")
        array = arrays[name]
        if array.dtype.kind != kind or array.ndim != ndim or len(array) != len(arrays["features"]):
            raise ValueError(f"'{name}' is {array.dtype} of shape {array.shape}")
    if CLASS_NAMES in arrays and (arrays[CLASS_NAMES].dtype.kind != "U" or arrays[CLASS_NAMES].ndim != 1):
        raise ValueError(f"'{CLASS_NAMES}' is {arrays[CLASS_NAMES].dtype} of shape {arrays[CLASS_NAMES].shape}")


def check_format(file: Path) -> None:
    """Checks that a file can be written or read by its suffix.

    Args:
        file: Its path.

    Raises:
        ConfigurationError: If the suffix names no format, or the library of the format is missing.
    """
    if file.suffix not in FORMATS:
        raise ConfigurationError(
            f"Expected a file of embeddings to end in one of {list(FORMATS)}, but got '{file}': the suffix says the format."
        )
    if file.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                f"Embeddings in '{file}' need the pyarrow package: pip install 'diet-lightning[parquet]'."
            ) from error


def write_arrays(file: Path, arrays: Mapping[str, Array]) -> None:
    """Writes arrays in the format that the file's suffix says, the same bytes for the same arrays.

    Args:
        file: The file.
        arrays: ``features``, ``index``, ``label`` and optionally ``path`` and ``class_names``; mapped arrays are not read
            into memory.

    Raises:
        OSError: If it cannot be written; `safetensors.SafetensorError` from that library.
    """
    FORMATS[file.suffix][0](file, arrays)


# -- .npz --------------------------------------------------------------------------------------------------------------


def _write_npz(file: Path, arrays: Mapping[str, Array]) -> None:
    # as np.savez, but aligned: numpy copies an unaligned mapped array before computing with it
    with file.open("wb") as raw, zipfile.ZipFile(raw, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # an extra field of zeros; 30 and 20 bytes are the zip's own
            padding = -(raw.tell() + 30 + len(member.filename) + 4 + 20) % ALIGNMENT
            member.extra = struct.pack("<HH", 0xFFFF, padding) + bytes(padding)
            with archive.open(member, "w", force_zip64=True) as stream:
                npy.write_array(stream, array, allow_pickle=False)  # in pieces


def _read_npz(file: Path) -> dict[str, Array]:
    with file.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        return {member.filename.removesuffix(".npy"): _member(raw, archive, member) for member in archive.infolist()}


def _member(raw: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """An array, mapped if it is stored uncompressed; `np.load` maps no array of an archive."""
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if member.compress_type == zipfile.ZIP_STORED and version == (1, 0):
            shape, is_fortran, dtype = npy.read_array_header_1_0(stream)
            if not is_fortran and not dtype.hasobject:
                header = stream.tell()
                raw.seek(member.header_offset + 26)
                start = member.header_offset + 30 + sum(struct.unpack("<HH", raw.read(4)))
                return np.memmap(raw, dtype, "r", start + header, shape)
    with archive.open(member) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        return array


# -- .safetensors ------------------------------------------------------------------------------------------------------


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


# -- .parquet ----------------------------------------------------------------------------------------------------------


def _write_parquet(file: Path, arrays: Mapping[str, Array]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = dict(arrays)
    classes = arrays.pop(CLASS_NAMES, None)
    count, dim = arrays["features"].shape
    types = {"features": pa.list_(pa.float32(), dim), "index": pa.int64(), "label": pa.int64(), "path": pa.string()}
    schema = pa.schema([(name, types[name]) for name in arrays])
    if classes is not None:
        schema = schema.with_metadata({CLASS_NAMES: json.dumps(classes.tolist())})
    with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for start in range(0, count, ROWS):
            part = {name: array[start : start + ROWS] for name, array in arrays.items()}
            features = pa.FixedSizeListArray.from_arrays(pa.array(part["features"].reshape(-1)), dim)
            writer.write_table(pa.table({**part, "features": features}, schema))


def _read_parquet(file: Path) -> dict[str, Array]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        schema, count = opened.schema_arrow, opened.metadata.num_rows
        dim = schema.field("features").type.list_size if "features" in schema.names else 0
        features, start = np.empty((count, dim), np.float32), 0
        rest: dict[str, list[Array]] = {name: [] for name in schema.names if name in ("index", "label", "path")}
        for group in range(opened.num_row_groups):  # group by group, as a table in memory would be a second copy
            table = opened.read_row_group(group, columns=["features", *rest])
            rows = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
            features[start : start + len(rows)] = rows
            start += len(rows)
            for name, parts in rest.items():
                values = table[name].to_numpy()
                parts.append(values.astype(np.str_) if name == "path" else values)
    arrays = {"features": features, **{name: np.concatenate(parts) for name, parts in rest.items()}}
    if CLASS_NAMES.encode() in (metadata := schema.metadata or {}):
        arrays[CLASS_NAMES] = np.array(json.loads(metadata[CLASS_NAMES.encode()]), np.str_)
    return arrays


FORMATS: dict[str, tuple[Callable[[Path, Mapping[str, Array]], None], Callable[[Path], dict[str, Array]]]] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
    ".safetensors": (_write_safetensors, _read_safetensors),
}
