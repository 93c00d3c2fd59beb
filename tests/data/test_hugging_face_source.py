"""Hugging Face's data sets: which columns, labels and splits are read, and what is told."""

from __future__ import annotations

import io
import itertools

import pytest
from PIL import Image

from diet_lightning import DIETDataModule
from diet_lightning.data.read_config import ReadConfig
from diet_lightning.errors import ConfigurationError, DataError

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


COLOURS = itertools.count()  # each image has its own, as equal ones are told


def png(value, side=6):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (*divmod(next(COLOURS), 256), 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{value}.png"}


@pytest.fixture
def write(tmp_path):
    """Writes a parquet file and returns a function that opens all of them."""

    def table(name, **columns):
        count = len(next(iter(columns.values())))
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": [png(n) for n in range(count)], **columns}), path)

        def opened(**options):
            data = DIETDataModule(
                f"hf:parquet:{tmp_path}/set", root=str(tmp_path / "cache"), batch_size=2, num_workers=0, **options
            )
            data.setup()
            return data

        return opened

    return table


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(
    ("column", "labels", "names"),
    [
        (["dog", "cat", None, "dog"], [1, 0, -1, 1], ["cat", "dog"]),
        (["10", "9", "10", "9"], [1, 0, 1, 0], ["9", "10"]),
        ([[1], [0], [1], [0]], [1, 0, 1, 0], None),
        ([1.0, 0.0, float("nan"), None], [1, 0, -1, -1], None),
        ([7, 10**9, 7, -100], [0, 1, 0, -1], ["7", "1000000000"]),
        ([[0, 1], [1], [], [0]], [-1] * 4, None),
        ([0.5, 1.5, 0.0, 2.0], [-1] * 4, None),
    ],
    ids=["text", "digits", "lists", "floats", "identifiers", "multi-label", "regression"],
)
def test_labels_of_any_kind_keep_every_image(write, column, labels, names, drop):
    data = write("train.parquet", label=column)(drop_unreadable=drop)
    assert (data.num_samples, data.train_labels.tolist(), data.class_names) == (4, labels, names)
    batches = list(data.raw_batches("train"))
    assert [int(label) for batch in batches for label in batch.label] == labels
    assert data.names("train") == ["0.png", "1.png", "2.png", "3.png"]


def test_an_unlabelled_test_file_lacks_the_column(write):
    write("train.parquet", label=[0, 1, 0, 1])
    write("validation.parquet", label=[1, 0])
    data = write("test.parquet", other=[5, 6, 7])()
    assert (data.num_classes, len(data.names("test"))) == (2, 3)
    assert [data.has_labels(split) for split in ("train", "val", "test")] == [True, True, False]
    assert data.notes == ["No sample of the test split has a label: it is left out of what needs labels."]


def test_columns_can_be_chosen_also_nested_ones(write):
    opened = write("train.parquet", label=[0, 1], meta=[{"species": "ox", "age": 3}, {"species": "ant", "age": 4}])
    assert opened().train_labels.tolist() == [0, 1]
    data = opened(read=ReadConfig(label_column="meta.species"))
    assert (data.train_labels.tolist(), data.class_names) == ([1, 0], ["ant", "ox"])
    with pytest.raises(ConfigurationError, match=r"`read.label_column` .*'label'.*'meta.age'.* but got 'species'"):
        opened(read=ReadConfig(label_column="species"))


def test_images_in_structures_without_the_features_of_hugging_face_are_read(tmp_path):
    for depth, table in enumerate(
        [
            {"sample": [{"image": png(n), "label": n % 2} for n in range(4)]},
            {"a": [{"b": {"image": png(n)}, "label": n % 2} for n in range(4)]},
        ]
    ):
        pq.write_table(pa.table(table), tmp_path / f"{depth}.parquet")
        data = DIETDataModule(f"hf:parquet:{tmp_path}/{depth}.parquet", root=str(tmp_path / "cache"), num_workers=0)
        assert (data.input_shape, data.train_labels.tolist()) == ((3, 6, 6), [0, 1, 0, 1])
        assert data.names("train") == ["0.png", "1.png", "2.png", "3.png"]


def test_lists_of_images_raise_an_error_that_says_so(tmp_path):
    table = {"images": [[png(n), png(n)] for n in range(3)], "label": [0, 1, 0]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    options = {"root": str(tmp_path / "cache"), "num_workers": 0}
    with pytest.raises(DataError, match=r"the columns \['images', 'label'\], but no column of images"):
        DIETDataModule(f"hf:parquet:{tmp_path}/a.parquet", **options).setup()
    with pytest.raises(
        DataError, match=r"'images' .* holds lists, such as .*: set `read.image_column` to a column with one"
    ):
        DIETDataModule(f"hf:parquet:{tmp_path}/a.parquet", read=ReadConfig(image_column="images"), **options).setup()


def test_files_are_told_apart_by_whole_words_and_the_rest_is_told(write):
    write("train-00000-of-00001.parquet", label=[0, 1])
    write("dev.parquet", label=[1, 0, 1])
    write("values.parquet", label=[5])
    data = write("TEST/0000.parquet", label=[0])()
    assert [len(data.names(split)) for split in ("train", "val", "test")] == [2, 3, 1]
    assert any("1 parquet file(s) are left out, such as values.parquet" in note for note in data.notes)


def hub(monkeypatch, **splits):
    """Answers `load_dataset` with splits whose labels are given, or name them."""

    def make(labels):
        names, numbers = labels if isinstance(labels, tuple) else (["a", "b"], labels)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = {"image": [png(n) for n in range(len(numbers))], "label": numbers}
        return datasets.Dataset.from_dict(rows, features)

    loaded = datasets.DatasetDict({split: make(labels) for split, labels in splits.items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    data = DIETDataModule("hf:some/set", batch_size=2)
    data.setup()
    return data


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "dev", "eval"), ("train", "valid", "testing")]
)
def test_the_usual_names_of_splits(monkeypatch, names):
    data = hub(monkeypatch, **dict(zip(names, ([0, 1, 1], [0, 1], [1, -1, -1, 0]), strict=True)))
    assert [len(data.names(split)) for split in ("train", "val", "test")] == [3, 2, 4]
    assert (data.notes, list(data.class_names)) == ([], ["a", "b"])


def test_other_splits_are_told(monkeypatch):
    data = hub(monkeypatch, train=[0, 1], test=[0], unsupervised=[-1, -1])
    assert data.notes == ["Splits ['unsupervised'] are left out: ['test', 'train'] are read."]


@pytest.mark.parametrize("only", ["full", "test"])
def test_a_set_without_a_training_split_is_refused_with_the_way_to_read_it(monkeypatch, only):
    with pytest.raises(DataError, match=rf"splits \['{only}'\].*from_datasets\(datasets.load_dataset.*split='{only}'"):
        hub(monkeypatch, **{only: [0, 1]})


def test_classes_of_another_order_in_another_split_are_joined_by_name(monkeypatch):
    data = hub(monkeypatch, train=(["ox", "ant"], [0, 1, 0]), test=(["ant", "ox"], [0, 1]))
    assert data.class_names == ["ant", "ox"]
    assert data.train_labels.tolist() == [1, 0, 1]
    assert data._splits["test"].dataset.labels.tolist() == [0, 1]


def test_a_set_that_was_saved_to_disk_is_read(tmp_path):
    split = datasets.Dataset.from_dict({"image": [png(n) for n in range(6)], "label": [0, 1] * 3})
    split.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    data = DIETDataModule(f"hf:{tmp_path / 'saved'}", num_workers=0)
    assert (data.num_samples, data.num_classes, data.input_shape) == (6, 2, (3, 6, 6))
    stored = data.raw_samples("train", range(6)).input[:, :, 0, 0].tolist()
    assert stored == [list(row["image"].getpixel((0, 0))) for row in split.cast_column("image", datasets.Image())]
