"""Embeddings in a file: written in pieces, read back mapped from the disk where the format allows."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from diet_lightning.errors import ConfigurationError, DataError

Array = NDArray[Any]
ALIGNMENT = 64  # bytes; a mapped array that does not lie so is copied before it is computed with
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}  # of safetensors, as far as needed
PATH_ENDS = "path_ends"  # safetensors knows no strings: path i is the bytes of `path` from ends[i - 1] to ends[i]


@dataclass(frozen=True)
class Embeddings:
    """What `EmbeddingWriter` writes, one row a sample, in the order of the index.

    Attributes:
        features: float32, shape ``(N, K)``.
        index: Index of each sample in its split, int64, shape ``(N,)``, ascending.
        label: The label, int64, shape ``(N,)``, -1 where there is none.
        path: Name of each sample, strings, shape ``(N,)``: the path of its file below the source's folder; None where the
            samples have no names.
    """

    features: NDArray[np.float32]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    path: NDArray[np.str_] | None = None


class Column(NamedTuple):
    """An array that is written piece by piece.

    Attributes:
        dtype: Of the values.
        shape: Of the whole.
        parts: Gives the pieces along the first axis, in order; all columns of a file have the same pieces.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    parts: Callable[[], Iterator[Array]]


def read_embeddings(path: str | Path) -> Embeddings:
    """Reads a file of `EmbeddingWriter`; no code in it is run.

    Arrays of ``.npz`` and ``.safetensors`` stay on the disk and are mapped into memory, read-only: slice them to read some.
    Those of ``.parquet`` are read.

    Args:
        path: The file: ``.npz``, ``.parquet`` or ``.safetensors``.

    Returns:
        The embeddings.

    Raises:
        ConfigurationError: If the suffix is another, or pyarrow is missing.
        DataError: If the file is missing, damaged, or holds something else.
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
    ) as error:
        raise DataError(
            f"Embeddings '{path}' cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "the file is damaged, or was not written by EmbeddingWriter; run `diet predict` again."
        ) from error
    return Embeddings(**{name: arrays.get(name) for name in ("features", "index", "label", "path")})  # type: ignore[arg-type]


def _check(arrays: Mapping[str, Array]) -> None:
    for name, kind, ndim in (("features", "f", 2), ("index", "i", 1), ("label", "i", 1), ("path", "U", 1)):
        if name not in arrays:
            if name == "path":
                continue
            raise ValueError(f"there is no array '{name}'")
        array = arrays[name]
        if array.dtype.kind != kind or array.ndim != ndim or len(array) != len(arrays["features"]):
            raise ValueError(f"'{name}' is {array.dtype} of shape {array.shape}")


def check_format(file: Path) -> None:
    """Refuses a file that could not be written or read.

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


def write_columns(file: Path, columns: Mapping[str, Column]) -> None:
    """Writes a file piece by piece, in the format that its suffix says, the same bytes for the same columns.

    Args:
        file: The file.
        columns: ``features``, ``index``, ``label`` and perhaps ``path``.

    Raises:
        OSError: If it cannot be written.
    """
    FORMATS[file.suffix][0](file, columns)


# -- .npz --------------------------------------------------------------------------------------------------------------


def _write_npz(file: Path, columns: Mapping[str, Column]) -> None:
    with file.open("wb") as raw, zipfile.ZipFile(raw, "w") as archive:
        for name, column in columns.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # an extra field of zeros brings the array to its alignment; 30 and 20 bytes are the zip's own
            start = raw.tell() + 30 + len(member.filename) + 4 + 20
            padding = -start % ALIGNMENT
            member.extra = struct.pack("<HH", 0xFFFF, padding) + bytes(padding)
            with archive.open(member, "w", force_zip64=True) as stream:
                header = {"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}
                npy.write_array_header_1_0(stream, header)
                for part in column.parts():
                    stream.write(part.tobytes())


def _read_npz(file: Path) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        return {member.filename.removesuffix(".npy"): _member(file, archive, member) for member in archive.infolist()}


def _member(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if member.compress_type == zipfile.ZIP_STORED and version == (1, 0):
            shape, is_fortran, dtype = npy.read_array_header_1_0(stream)
            if not is_fortran and not dtype.hasobject:
                return np.memmap(file, dtype, "r", _start(file, member) + stream.tell(), shape)
    with archive.open(member) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        return array


def _start(file: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin."""
    with file.open("rb") as raw:
        raw.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", raw.read(4))
    return member.header_offset + 30 + int(name) + int(extra)


# -- .safetensors ------------------------------------------------------------------------------------------------------


def _write_safetensors(file: Path, columns: Mapping[str, Column]) -> None:
    # the library takes whole arrays; the format is the header's length, the header, the arrays
    columns = dict(columns)
    if "path" in columns:
        columns |= _bytes_and_ends(columns.pop("path"))
    columns = dict(sorted(columns.items(), key=lambda item: -item[1].dtype.itemsize))  # so that each is aligned
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, end = {}, 0
    for name, column in columns.items():
        start, end = end, end + column.dtype.itemsize * int(np.prod(column.shape))
        header[name] = {"dtype": names[column.dtype], "shape": list(column.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    with file.open("wb") as raw:
        raw.write(struct.pack("<Q", len(text)) + text)
        for column in columns.values():
            for part in column.parts():
                raw.write(part.tobytes())


def _bytes_and_ends(path: Column) -> dict[str, Column]:
    def encoded() -> Iterator[Array]:
        for part in path.parts():
            yield np.frombuffer("".join(part).encode(), np.uint8)

    ends = np.cumsum([len(name.encode()) for part in path.parts() for name in part], dtype="<i8")
    return {
        "path": Column(DTYPES["U8"], (int(ends[-1]),), encoded),
        PATH_ENDS: Column(DTYPES["I64"], ends.shape, lambda: iter([ends])),
    }


def _read_safetensors(file: Path) -> dict[str, Array]:
    with file.open("rb") as raw:
        (length,) = struct.unpack("<Q", raw.read(8))
        if length > os.fstat(raw.fileno()).st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(raw.read(length))
    arrays: dict[str, Array] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
            arrays[name] = np.memmap(file, dtype, "r", 8 + length + entry["data_offsets"][0], shape)
    if "path" in arrays:
        text, ends = arrays["path"].tobytes(), arrays.pop(PATH_ENDS).tolist()
        arrays["path"] = np.array(
            [text[start:end].decode() for start, end in zip([0, *ends[:-1]], ends, strict=True)], dtype=np.str_
        )
    return arrays


# -- .parquet ----------------------------------------------------------------------------------------------------------


def _write_parquet(file: Path, columns: Mapping[str, Column]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    dim = columns["features"].shape[1]
    types = {"features": pa.list_(pa.float32(), dim), "index": pa.int64(), "label": pa.int64(), "path": pa.string()}
    schema = pa.schema([(name, types[name]) for name in columns])

    def arrow(name: str, part: Array) -> Any:
        if name == "features":
            return pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), dim)
        return pa.array(part, types[name])

    with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for parts in zip(*(column.parts() for column in columns.values()), strict=True):
            arrays = [arrow(name, part) for name, part in zip(columns, parts, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _read_parquet(file: Path) -> dict[str, Array]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        schema, count = opened.schema_arrow, opened.metadata.num_rows
        dim = schema.field("features").type.list_size if "features" in schema.names else 0
        features, start = np.empty((count, dim), np.float32), 0
        rest: dict[str, list[Array]] = {name: [] for name in schema.names if name in ("index", "label", "path")}
        for group in range(opened.num_row_groups):  # one after another, as a table in memory would be a second copy
            table = opened.read_row_group(group, columns=["features", *rest])
            rows = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
            features[start : start + len(rows)] = rows
            start += len(rows)
            for name, parts in rest.items():
                values = table[name].to_numpy()
                parts.append(values.astype(np.str_) if name == "path" else values)
    return {"features": features, **{name: np.concatenate(parts) for name, parts in rest.items()}}


FORMATS: dict[str, tuple[Callable[[Path, Mapping[str, Column]], None], Callable[[Path], dict[str, Array]]]] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
    ".safetensors": (_write_safetensors, _read_safetensors),
}
