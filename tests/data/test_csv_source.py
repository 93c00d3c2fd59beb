"""Tables of paths and labels: how columns are found, what labels become, and what is refused."""

from __future__ import annotations

import csv
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diet_lightning import DIETDataModule
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.data.sources import SourceOptions, load_source
from diet_lightning.errors import ConfigurationError, DataError


@pytest.fixture
def folder(tmp_path):
    """Five images, each of the colour that is its number, below ``images``."""
    for n in range(5):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (6, 6), (n, n, n)).save(tmp_path / "images" / f"{n}.png")
    return tmp_path


def write(folder, *lines, name="table.csv", encoding="utf-8"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return f"csv:{folder / name}"


def opened(name, holdout=0.0, **read):
    return load_source(name, SourceOptions(holdout=holdout, read=ReadConfig(**read)))


def colours(dataset):
    return [int(dataset[n][0].flatten()[0]) for n in range(len(dataset))]


def labels(dataset):
    return [int(dataset[n][1]) for n in range(len(dataset))]


LINES = ("images/3.png,dog", "images/0.png,cat", "images/4.png,dog")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["path,label", "Image Path,Class", "filename,target", "file,category", None])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_paths_and_labels_are_read_in_the_order_of_the_table(folder, delimiter, header, encoding):
    lines = [line.replace(",", delimiter) for line in ((header,) if header else ()) + LINES]
    source = opened(write(folder, *lines, encoding=encoding))
    assert (colours(source.train), labels(source.train)) == ([3, 0, 4], [1, 0, 1])
    assert list(source.class_names) == ["cat", "dog"]
    assert source.train.names == ["images/3.png", "images/0.png", "images/4.png"]


def test_a_module_reads_a_table(folder):
    data = DIETDataModule(write(folder, "path,label", *LINES), batch_size=2, num_workers=0, holdout=0.0)
    assert (data.num_samples, data.num_classes, list(data.class_names)) == (3, 2, ["cat", "dog"])
    assert any("set read.image_column and read.label_column" in note for note in data.notes)


@pytest.mark.parametrize(
    ("cells", "expected", "names"),
    [
        (["10", "2", "0", "2"], [2, 1, 0, 1], ["0", "2", "10"]),
        (["1.0", "0.0", "", "2.0"], [1, 0, -1, 2], ["0", "1", "2"]),
        (["1", "-1", "-100", "0"], [1, -1, -1, 0], ["0", "1"]),
        (["b", "", "a", "b"], [1, -1, 0, 1], ["a", "b"]),
        (["10", "2", "x", "2"], [0, 1, 2, 1], ["10", "2", "x"]),
        (
            ["123456789012345678", "123456789012345679", "0", "0"],
            [1, 2, 0, 0],
            ["0", "123456789012345678", "123456789012345679"],
        ),
        (["", "", "", ""], [-1] * 4, None),
        (["inf", "nan", "Infinity", "inf"], [1, -1, 0, 1], ["Infinity", "inf"]),
    ],
)
def test_labels_are_numbered_in_their_order_and_empty_ones_are_none(folder, cells, expected, names):
    source = opened(write(folder, "path,label", *(f"images/{n}.png,{cell}" for n, cell in enumerate(cells))))
    assert labels(source.train) == expected
    assert (None if source.class_names is None else list(source.class_names)) == names
    missing = [note for note in source.notes if "have no label" in note]
    assert len(missing) == (-1 in expected)


def test_numbers_that_are_no_classes_are_not_taken_for_them(folder):
    source = opened(write(folder, "path,target", "images/0.png,0.25", "images/1.png,1.5"))
    assert (labels(source.train), source.class_names) == ([-1, -1], None)
    said = "Labels with fractions, such as 0.25, are a target of regression: the probe and the evaluation are off."
    assert said in source.notes


def test_a_split_column_makes_splits(folder):
    rows = ["images/0.png,a,Train", "images/1.png,b,train", "images/2.png,B,validation", "images/3.png,a,test"]
    source = opened(write(folder, "file,class,split", *rows))
    assert [colours(split) for split in (source.train, source.val, source.test)] == [[0, 1], [2], [3]]
    assert [labels(split) for split in (source.train, source.val, source.test)] == [[0, 1], [1], [0]]
    assert any("are one class: 'B' and 'b'." in note for note in source.notes)


def test_a_column_called_set_of_other_values_is_no_split(folder):
    source = opened(write(folder, "path,label,set", "images/0.png,a,one", "images/1.png,b,two"))
    assert (len(source.train), source.val) == (2, None)


def test_columns_may_be_chosen(folder):
    name = write(
        folder, "id,path,thumb,label,breed", "7,images/0.png,images/1.png,a,x", "8,images/2.png,images/3.png,b,y"
    )
    assert colours(opened(name).train) == [0, 2]
    source = opened(name, image_column="thumb", label_column="Breed")
    assert (colours(source.train), list(source.class_names)) == ([1, 3], ["x", "y"])
    note = next(note for note in opened(name).notes if "as images" in note)
    assert "column 'path'" in note
    assert "'label' as labels" in note
    assert "'breed'" in note
    with pytest.raises(ConfigurationError, match=r"read.label_column.*'breed'.* but got 'species'"):
        opened(name, label_column="species")


def test_the_only_column_of_files_and_the_only_other_column_are_taken(folder):
    source = opened(write(folder, "photo,breed", "images/0.png,x", "images/1.png,y"))
    assert (colours(source.train), list(source.class_names)) == ([0, 1], ["x", "y"])
    source = opened(write(folder, "path,x,y", "images/0.png,1,0", "images/1.png,0,1"))
    assert (labels(source.train), source.class_names) == ([-1, -1], None)
    assert any("without labels" in note and "['x', 'y']" in note for note in source.notes)
    assert labels(opened(write(folder, "images/0.png", "images/1.png")).train) == [-1, -1]


def test_paths_may_be_quoted_absolute_windows_or_above(folder):
    (folder / "tables").mkdir()
    Image.new("RGB", (6, 6), (9, 9, 9)).save(folder / "tables" / "a, b.png")
    rows = ["..\\images\\1.png,x", f"{folder}/images/2.png,x", '"a, b.png",y', "./../images/3.png,y"]
    source = opened(write(folder, "path,label", *rows, name="tables/t.csv"))
    assert colours(source.train) == [1, 2, 9, 3]
    assert source.train.names == ["images/1.png", "images/2.png", "tables/a, b.png", "images/3.png"]


def test_a_share_of_a_labelled_table_is_held_out_and_told(folder):
    source = opened(write(folder, "path,label", *(f"images/{n}.png,a" for n in range(5))), holdout=0.4)
    assert (len(source.train), len(source.val)) == (3, 2)
    assert sorted(colours(source.train) + colours(source.val)) == list(range(5))
    assert "Held out 2 of the 5 images (40%) for validation; set holdout to 0 to train on all." in source.notes


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["path,label", "images/0.png,a", "gone.png,b", "far.png,b"],
            r"2 file\(s\) that do not exist, the first in line 3: 'gone.png'",
        ),
        (["path,label", "images/0.png,a", ",b"], r"names 1 file\(s\) that do not exist, the first in line 3: ''"),
        (["path,label", "images/0.png,a", "images/0.png,b"], r"1 file\(s\) more than once, the first in line 3"),
        (["path,label", "images/0.png,a", "images/1.png"], "Line 3 of table .* has 1 column"),
        (
            ["x,y,z", "a,b,c", "d,e,f"],
            "columns .'x', 'y', 'z'., of which none holds paths.*separated by commas, semicolons, tabs or",
        ),
        (["x,y", "images/0.png,images/1.png"], "several hold paths"),
        (["path,split", "images/0.png,train", "images/1.png,extra"], "got 'extra' in line 3"),
        (["path,split", "images/0.png,test", "images/1.png,val"], "gives no row to the split train"),
        (["path,label"], "has one line"),
        ([""], "is empty"),
    ],
)
def test_a_damaged_table_is_refused_with_the_line(folder, lines, message):
    with pytest.raises(DataError, match=message):
        opened(write(folder, *lines))


def test_what_is_no_table_is_refused(folder):
    (folder / "x.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(DataError, match=r"x.csv' cannot be read: .*save it as comma-separated values in UTF-8"):
        opened(f"csv:{folder / 'x.csv'}")
    with pytest.raises(DataError, match="is a folder: write folder:"):
        opened(f"csv:{folder}")
    with pytest.raises(DataError, match="does not exist: give the path of a table"):
        opened(f"csv:{folder / 'none.csv'}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(st.text(string.ascii_letters + ' ,;"\t_-é', min_size=1).filter(str.strip), min_size=2, max_size=5),
    st.sampled_from(",;\t"),
)
def test_any_text_is_a_label(folder, names, delimiter):
    with (folder / "any.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        rows.writerow(["path", "label"])
        rows.writerows([f"images/{n}.png", name] for n, name in enumerate(names))
    source = opened(f"csv:{folder / 'any.csv'}")
    if any(name.strip().lower() == "nan" for name in names):
        return
    classes = [source.class_names[label].casefold() for label in labels(source.train)]
    assert classes == [name.strip().casefold() for name in names]


@pytest.mark.parametrize("header", ["path,label", None])
@pytest.mark.parametrize("cell", ["cat, big", "cat,,x"])
def test_a_row_of_more_cells_than_the_first_is_refused(folder, header, cell):
    lines = [*([header] if header else []), "images/0.png,dog", f"images/1.png,{cell}", "images/2.png,dog"]
    with pytest.raises(DataError, match=rf"Line {len(lines) - 1} of table .* quotation marks"):
        opened(write(folder, *lines))
    quoted = opened(write(folder, *(line.replace(cell, f'"{cell}"') for line in lines)))
    assert list(quoted.class_names) == [cell, "dog"]


def test_empty_cells_behind_the_last_column_are_ignored(folder):
    source = opened(write(folder, "path,label", *(f"{line},," for line in LINES)))
    assert (colours(source.train), labels(source.train)) == ([3, 0, 4], [1, 0, 1])


@pytest.mark.parametrize(
    "lines",
    [
        ("# all pets", "path,label", *LINES),
        ("# all pets, small and large, of 2020", "", "path,label", *LINES),
        ("# path,label", *LINES),
        ("# all pets", "# of 2020", *LINES),
        ("path,label", LINES[0], "# doubtful, these two", *LINES[1:]),
    ],
)
def test_comments_are_ignored(folder, lines):
    source = opened(write(folder, *lines))
    assert (colours(source.train), labels(source.train)) == ([3, 0, 4], [1, 0, 1])


def test_a_commented_header_names_the_columns(folder):
    source = opened(write(folder, "# size,label,path", *("7,{1},{0}".format(*line.split(",")) for line in LINES)))
    assert (colours(source.train), labels(source.train)) == ([3, 0, 4], [1, 0, 1])


def test_files_whose_names_begin_as_comments_do_are_read(folder):
    for n, line in enumerate(LINES):
        (folder / line.split(",")[0]).rename(folder / f"#{n}.png")
    source = opened(write(folder, *(f"#{n}.png,{line.split(',')[1]}" for n, line in enumerate(LINES))))
    assert (colours(source.train), labels(source.train)) == ([3, 0, 4], [1, 0, 1])


def test_addresses_of_files_are_paths(folder):
    (folder / "images" / "3.png").rename(folder / "images" / "ä 3.png")
    lines = [f"{(folder / line.split(',')[0]).as_uri()},{line.split(',')[1]}" for line in LINES]
    lines[0] = f"{(folder / 'images' / 'ä 3.png').as_uri()},dog"
    assert "%20" in lines[0]
    source = opened(write(folder, "path,label", *lines))
    assert (colours(source.train), labels(source.train)) == ([3, 0, 4], [1, 0, 1])


@pytest.mark.parametrize("header", ["path label", None])
def test_the_separators_are_named_where_there_are_others(folder, header):
    with pytest.raises(DataError, match=r"separated by commas, semicolons, tabs or '\|'"):
        opened(write(folder, *([header] if header else []), *(line.replace(",", " ") for line in LINES)))


@pytest.mark.parametrize("cells", [("01", "1", "2"), ("1e5", "100000", "7"), ("1.0", "1", "+3")])
def test_numbers_of_several_spellings_are_told(folder, cells):
    lines = [f"images/{n}.png,{cell}" for n, cell in enumerate(cells)]
    source = opened(write(folder, "path,label", *lines))
    assert labels(source.train)[0] == labels(source.train)[1] != labels(source.train)[2]
    assert any(f"{cells[0]!r} and {cells[1]!r}" in note for note in source.notes)
    assert not any("same number" in note for note in opened(write(folder, "path,label", *lines[1:])).notes)
