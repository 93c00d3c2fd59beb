"""Paths without a kind, of another kind, or misspelt: one sentence says what to write."""

from __future__ import annotations

import pytest
from PIL import Image

from diet_lightning.data.sources import SourceOptions, load_source
from diet_lightning.errors import DIETError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (6, 6)).save(tmp_path / "photos" / "one.png")
    for name in (
        "a.zip",
        "a.tar",
        "b.tar.gz",
        "c.rar",
        "d.7z",
        "e.TGZ",
        "t.csv",
        "t.tsv",
        "x.npz",
        "y.parquet",
        "z.xlsx",
        "v.mp4",
    ):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


CASES = {
    "photos": "Source 'photos' is a folder: write folder:photos.",
    "./photos": "Source './photos' is a folder: write folder:photos.",
    "a.zip": "Source 'a.zip' is a file: unpack it and write folder:a.",
    "folder:a.zip": "Source folder 'a.zip' is a file: unpack it and write folder:a.",
    "folder:a.tar": "Source folder 'a.tar' is a file: unpack it and write folder:a.",
    "folder:b.tar.gz": "Source folder 'b.tar.gz' is a file: unpack it and write folder:b.",
    "folder:c.rar": "Source folder 'c.rar' is a file: unpack it and write folder:c.",
    "d.7z": "Source 'd.7z' is a file: unpack it and write folder:d.",
    "e.TGZ": "Source 'e.TGZ' is a file: unpack it and write folder:e.",
    "photos/one.png": "Source 'photos/one.png' is a file: put all images into a folder and write folder:photos.",
    "folder:photos/one.png": "Source folder 'photos/one.png' is a file: put all images into a folder and write folder:photos.",
    "t.csv": "Source 't.csv' is a file: write csv:t.csv.",
    "folder:t.tsv": "Source folder 't.tsv' is a file: write csv:t.tsv.",
    "x.npz": "Source 'x.npz' is a file: write npz:x.npz.",
    "folder:y.parquet": "Source folder 'y.parquet' is a file: write hf:parquet:y.parquet.",
    "z.xlsx": "Source 'z.xlsx' is a file: save it as comma-separated values and write csv:z.csv.",
    "v.mp4": "Source 'v.mp4' is a file: no source reads the ending '.mp4', put images into a folder and write folder:PATH.",
    "csv:photos": "Source table 'photos' is a folder: write folder:photos.",
    "folder:photo": "Source folder 'photo' does not exist: did you mean 'photos', or give the path of a folder of images.",
    "photos/on.png": "Source 'photos/on.png' does not exist: did you mean 'photos/one.png', or write folder:PATH for a folder of images.",
    "csv:tt.csv": "Source table 'tt.csv' does not exist: did you mean 't.csv', or give the path of a table of paths and labels.",
}


@pytest.mark.parametrize("name", CASES)
def test_a_path_of_another_kind_is_answered_with_what_to_write(here, name):
    with pytest.raises(DIETError) as error:
        load_source(name, SourceOptions())
    assert str(error.value) == CASES[name]


@pytest.mark.parametrize(
    ("name", "near"), [("foldr:photos", "folder:photos"), ("CSV:t.csv", "csv:t.csv"), ("digit", "digits")]
)
def test_a_misspelt_kind_is_answered_with_the_nearest(here, name, near):
    with pytest.raises(DIETError, match=f"Unknown source '{name}': did you mean {near}\\?"):
        load_source(name, SourceOptions())
