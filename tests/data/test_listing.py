"""Listing of image files: the order, what is followed, what is left out and how it is told."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diet_lightning.data import image_formats
from diet_lightning.data.image_formats import is_readable
from diet_lightning.data.listing import list_images, natural_key
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.sources import SourceOptions, load_source
from diet_lightning.errors import DataError
from diet_lightning.runs.record import RunRecord


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (value, value, value)).save(path)
    return path


def listed(root):
    """Paths of the images below a folder, with slashes."""
    return [Path(path).relative_to(root).as_posix() for path in list_images(root).paths]


def note(root):
    return list_images(root).note.replace(str(root), "R")


def write_run(folder, figure=True):
    """What a run leaves in its folder."""
    RunRecord(8, "0" * 32, (3, 6, 6), 2, ["a", "b"], "folder:.", "resnet8", "index", 0.8, 4, None).write(folder)
    (folder / "metrics.csv").write_text("epoch")
    (folder / "checkpoints").mkdir()
    if figure:
        save(folder / "figure.png")


# -- order -------------------------------------------------------------------------------------------------------------


def test_natural_order_is_total_where_names_are_alike(tmp_path):
    names = ["01.png", "1.png", "1a.png", "a01.png", "a1.png", "B0.png"]
    for name in reversed(names):
        save(tmp_path / name)
    assert listed(tmp_path) == names


def test_natural_order_knows_a_superscript_from_a_number(tmp_path):
    save(tmp_path / "1²2.png")
    save(tmp_path / "3.png")
    assert len(listed(tmp_path)) == 2


def test_hidden_files_and_files_of_other_kinds_are_ignored(tmp_path):
    save(tmp_path / "a.png", 1)
    save(tmp_path / "B.PNG", 2)
    save(tmp_path / "._a.png", 3)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert listed(tmp_path) == ["a.png", "B.PNG"]


def test_a_hidden_folder_above_is_no_hindrance(tmp_path):
    save(tmp_path / ".cache" / "a.png")
    assert len(listed(tmp_path / ".cache")) == 1


def by_parts(name):
    """The order in plain words: numbers by their value and before other characters, which are compared in lower case."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


@given(st.lists(st.text("aB1 0.9é_٣²", min_size=1, max_size=8), min_size=2, max_size=2))
def test_the_key_orders_names_as_their_numbers_and_texts_do(names):
    first, second = names
    assert (natural_key(first) < natural_key(second)) == (by_parts(first) < by_parts(second))


def test_paths_are_ordered_by_their_components(tmp_path):
    names = ["a/2.png", "a/10.png", "a.png", "a b/1.png", "a10/1.png", "b2/x/1.png", "b2/y.png", "b10/1.png"]
    for name in names:
        save(tmp_path / name)
    found = listed(tmp_path)
    assert found == sorted(names, key=lambda name: [natural_key(part) for part in name.split("/")])
    listing = list_images(tmp_path)
    for path, folder in zip(listing.paths, listing.folder_of, strict=True):
        assert Path(path).parent == tmp_path.joinpath(*listing.folders[folder])
    assert listing.counts.sum() == len(names)


def test_the_stamps_are_those_of_the_files_in_their_order(tmp_path):
    for size, name in enumerate(["a/2.png", "a/10.png", "a.png", "b2/x/1.png", "b2/y.png", "b10/1.png"]):
        save(tmp_path / name).write_bytes(bytes(size))
        os.utime(tmp_path / name, ns=(0, 10**18 + size))
    (tmp_path / "a 5.png").symlink_to("a/2.png")
    listing = list_images(tmp_path)
    found = [Path(path).stat() for path in listing.paths]
    assert len(found) == 7
    assert listing.stamps.tolist() == [[each.st_size, each.st_mtime_ns, each.st_ctime_ns] for each in found]


def test_several_names_are_ordered_as_each_alone():
    names = [
        "a",
        "B10",
        "9" * 46,
        "9" * 47,
        "9" * 48,
        "x007 7",
    ]  # of which one number has as many digits as "/" has places
    assert natural_key("/".join(names)).split("/") == list(map(natural_key, names))
    assert sorted([names[4], names[2], names[3]], key=natural_key) == names[2:5]


@given(st.lists(st.lists(st.sampled_from(["a", "B", "10", "9"]), min_size=1, max_size=3), unique_by=tuple, max_size=12))
def test_every_image_is_listed_once_whatever_the_tree(names):
    with tempfile.TemporaryDirectory() as folder:
        for parts in names:
            file = Path(folder, *parts, "x.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        listing = list_images(folder)
        assert sorted(listing.paths) == sorted(str(path) for path in Path(folder).rglob("x.png"))
        assert listing.note is None


# -- links -------------------------------------------------------------------------------------------------------------


def test_a_link_above_the_root_does_not_list_what_is_around_it(tmp_path):
    save(tmp_path / "other" / "0.png")
    save(tmp_path / "root" / "1.png")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    assert listed(tmp_path / "root") == ["1.png"]
    assert note(tmp_path / "root") == "Left out 1 folder below 'R': 1 link to a folder above it."


def test_links_in_a_circle_are_told(tmp_path):
    for one, other in itertools.permutations("ab"):
        save(tmp_path / one / "1.png")
        (tmp_path / one / "to").symlink_to(tmp_path / other)
    assert listed(tmp_path) == ["a/1.png", "a/to/1.png", "b/1.png", "b/to/1.png"]
    assert "2 links to folders above them" in note(tmp_path)


# -- endings -----------------------------------------------------------------------------------------------------------


PILLOWS = (
    "png apng jpg jpeg jfif jpe JPG bmp dib gif tif tiff webp avif jp2 j2k tga ppm pgm pbm pnm ico pcx sgi qoi dds mpo"
)


@pytest.mark.parametrize("ending", PILLOWS.split())
def test_what_pillow_writes_it_reads_and_it_is_listed(tmp_path, ending):
    file = tmp_path / f"x.{ending}"
    image = Image.new("L" if ending in ("pgm", "pbm") else "RGB", (16, 16), 9)
    image.save(file)
    assert listed(tmp_path) == [file.name]
    source = load_source(f"folder:{tmp_path}", SourceOptions())
    assert source.train[0][0].shape == (1 if image.mode == "L" else 3, 16, 16)


@pytest.mark.parametrize("ending", ["pdf", "ps", "eps", "mpg", "h5", "grib", "bufr", "wmf", "iim", "svg", "dcm", ""])
def test_what_is_no_image_here_is_not_listed(ending):
    assert not is_readable(f".{ending}" if ending else "")


def test_heic_files_are_read_with_the_package_and_told_without(tmp_path, monkeypatch):
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "b.HEIC", "HEIF")
    save(tmp_path / "a.png")
    source = load_source(f"folder:{tmp_path}", SourceOptions(image_size=16))
    assert source.train.names == ["a.png", "b.HEIC"]
    assert abs(int(source.train[1][0][0, 8, 8]) - 200) < 10
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    assert listed(tmp_path) == ["a.png"]
    assert note(tmp_path) == "Left out 1 file below 'R': 1 .heic (install diet-lightning[heic])."


def test_a_process_that_only_reads_registers_heic_itself(tmp_path):
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "b.heif", "HEIF")
    code = (
        "import sys; from diet_lightning.data.image_files import ImageFiles\n"
        "print(ImageFiles([sys.argv[1]], [3], sys.argv[2])[0][1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "b.heif", tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "3"


@pytest.mark.parametrize(("format", "ending"), [("AVIF", ".avif"), ("WEBP", ".webp"), ("JPEG2000", ".jp2")])
def test_endings_of_a_pillow_without_the_codec_are_told_with_the_cure(tmp_path, monkeypatch, format, ending):
    save(tmp_path / "a.png")
    (tmp_path / f"b{ending}").touch()
    codec = image_formats.CODECS[format]
    monkeypatch.setattr(image_formats.features, "check", lambda name: name != codec)
    image_formats._pillow_endings.cache_clear()
    try:
        assert listed(tmp_path) == ["a.png"]
        assert f"1 {ending} (install a Pillow that reads them)" in note(tmp_path)
    finally:
        monkeypatch.undo()
        image_formats._pillow_endings.cache_clear()
    assert listed(tmp_path) == ["a.png", f"b{ending}"]


# -- what is left out --------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_counted_by_ending_and_reason(tmp_path):
    save(tmp_path / "a.png")
    for name in ("x.DCM", "y.dcm", "notes.txt", "README", "Thumbs.db", "@eaDir/a.png", "cat/__MACOSX/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    assert listed(tmp_path) == ["a.png"]
    said = note(tmp_path)
    assert said.startswith("Left out 6 files and 2 folders below 'R': ")
    parts = said.split(": ", 1)[1].rstrip(".").split(", ")
    assert sorted(parts) == sorted(
        ["2 .dcm", "2 system folders", "1 .txt", "1 file without an ending", "1 system file", "1 dead link"]
    )
    assert parts[:2] in (["2 .dcm", "2 system folders"], ["2 system folders", "2 .dcm"])  # most first


def test_a_long_list_of_endings_is_cut(tmp_path):
    save(tmp_path / "a.png")
    for n in range(30):
        (tmp_path / f"x.e{n}").touch()
    assert "22 others" in note(tmp_path)
    assert note(tmp_path).count(",") == 8


def test_a_socket_is_no_image(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)  # the whole path may be too long
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("b.png")
    assert listed(tmp_path) == ["a.png"]
    assert "1 device or socket" in note(tmp_path)


@pytest.fixture
def as_user():
    """A folder of a user without the rights of an administrator, and that user's process."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def unprivileged():
    """Permissions do not bind an administrator."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_and_folders_without_permission_are_told(as_user):
    for name in ("a.png", "b.png", "closed/c.png", "d/e.png"):
        save(as_user / name).chmod(0o644)
    (as_user / "b.png").chmod(0)
    (as_user / "closed").chmod(0)
    with unprivileged():
        found, said = listed(as_user), note(as_user)
        with pytest.raises(DataError, match="closed' cannot be read"):
            list_images(as_user / "closed")
    (as_user / "closed").chmod(0o755)
    assert found == ["a.png", "d/e.png"]
    assert said.startswith("Left out 1 file and 1 folder below 'R': ")
    assert "1 file without read permission" in said
    assert "1 folder without read permission" in said


@pytest.mark.parametrize(
    ("mode", "is_mine"), [(0o400, True), (0o004, False), (0o044, True), (0o040, False), (0o444, False)]
)
def test_the_mode_of_a_file_decides_with_its_owner(as_user, mode, is_mine):
    file = save(as_user / "a.png")
    if is_mine and not os.geteuid():
        os.chown(file, 65534, -1)
    file.chmod(mode)
    with unprivileged():
        found = listed(as_user)
        try:
            file.read_bytes()
        except PermissionError:
            assert found == []
        else:
            assert found == ["a.png"]


def test_folders_of_runs_are_left_out_and_others_with_such_a_file_are_not(tmp_path):
    save(tmp_path / "cat" / "0.png")
    write_run(tmp_path / "runs" / "one")
    write_run(tmp_path / "runs" / "two")
    save(tmp_path / "mine" / "1.png")
    (tmp_path / "mine" / "run.json").write_text(json.dumps({"speed": 3}))
    save(tmp_path / "torn" / "2.png")
    (tmp_path / "torn" / "run.json").write_text("{")
    assert listed(tmp_path) == ["cat/0.png", "mine/1.png", "torn/2.png"]
    assert "2 folders of runs" in note(tmp_path)
    assert "metrics" not in note(tmp_path)
    assert ".csv" not in note(tmp_path)


def test_a_run_folder_is_listed_where_it_is_what_was_asked_for(tmp_path):
    write_run(tmp_path / "one")
    assert listed(tmp_path / "one") == ["figure.png"]


@pytest.mark.parametrize(
    ("name", "raises"),
    [("x.dcm", True), ("y", True), ("gone.png", True), ("a.txt", False), ("Thumbs.db", False), ("@eaDir/a.png", False)],
)
def test_strict_raises_where_an_image_may_be_missing(tmp_path, name, raises):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    if name == "gone.png":
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    options = SourceOptions(read=ReadConfig(strict=True))
    if raises:
        with pytest.raises(DataError, match=r"^Left out 1 file below .* set read.strict to false"):
            load_source(f"folder:{tmp_path}", options)
    else:
        source = load_source(f"folder:{tmp_path}", options)
        assert len(source.train) == 2
        assert any(said.startswith("Left out 1 ") for said in source.notes)


def test_names_outside_the_encoding_are_told_in_plain_text(tmp_path):
    save(tmp_path / os.fsdecode(b"caf\xe9") / "0.png")
    save(tmp_path / "dog" / "1.png")
    source = load_source(f"folder:{tmp_path}", SourceOptions(holdout=0.0))
    assert list(source.class_names) == ["caf\\xe9", "dog"]
    for said in [*source.notes, *source.class_names, *source.train.names]:
        said.encode()
    assert source.train[0][0].shape == (3, 6, 6)


def test_images_are_kept_as_text_and_numbers(tmp_path):
    for n in range(4):
        save(tmp_path / f"c{n % 2}" / f"{n}.png")
    items = load_source(f"folder:{tmp_path}", SourceOptions(holdout=0.0)).train.items
    assert all(type(path) is str for path in items.paths)
    assert (items.labels.dtype, items.labels.tolist()) == ("int64", [0, 0, 1, 1])
