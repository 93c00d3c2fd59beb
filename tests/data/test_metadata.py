"""Names of samples, from every kind of source, however its images are kept."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from diet_lightning import DIETDataModule
from diet_lightning.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Left out")


def save(path, value):
    """An image of one colour, by which a test knows it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (value, value, value)).save(path)


@pytest.fixture
def tree(tmp_path):
    """Twelve images in class folders, of which one cannot be read; the number in a name is the image's colour."""
    for n in range(12):
        save(tmp_path / "tree" / ("cat", "dog")[n % 2] / f"{n}.png", n)
    (tmp_path / "tree/cat/4.png").write_bytes(b"broken")
    return tmp_path / "tree"


def named_by_colour(data, split):
    """The name that each image must have, read off its pixels."""
    loader = {"train": data.predict_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[split]()
    return [int(colour) for batch in loader for colour in batch.input[:, 0, 0, 0]]


@pytest.mark.parametrize(
    "options", [{"in_memory": False}, {"in_memory": True}, {"cache": "c"}, {"cache": "c", "in_memory": True}]
)
@pytest.mark.parametrize("subset", [None, 5])
def test_names_of_files_stay_with_their_images(tree, options, subset):
    data = DIETDataModule(
        f"folder:{tree}", batch_size=4, holdout=0.3, subset=subset, drop_unreadable=True, num_workers=0, **options
    )
    for split in ("train", "val", "test"):
        colours = named_by_colour(data, split)
        assert data.names(split) == [f"{('cat', 'dog')[n % 2]}/{n}.png" for n in colours]
    assert len(data.names("train")) + len(data.names("val")) == (11 if subset is None else 5 + len(data.names("val")))


def test_names_of_split_folders_are_relative_to_the_source(tmp_path):
    for n, split in enumerate(("train", "train", "val", "test")):
        save(tmp_path / "s" / split / "a" / f"{n}.png", n)
    data = DIETDataModule(f"folder:{tmp_path}/s")
    assert data.names("train") == ["train/a/0.png", "train/a/1.png"]
    assert (data.names("val"), data.names("test")) == (["val/a/2.png"], ["test/a/3.png"])


def test_name_that_is_no_text_is_escaped(tmp_path):
    for name in (b"a.png", b"\xff.png"):
        save(tmp_path / "f" / os.fsdecode(name), 0)
    assert DIETDataModule(f"folder:{tmp_path}/f").names("train") == ["a.png", "\\xff.png"]


def test_names_of_torchvisions_sets(tmp_path):
    base = tmp_path / "dtd/dtd"
    for split, numbers in {"train": (3, 1), "val": (2,), "test": (0,)}.items():
        (base / "labels").mkdir(parents=True, exist_ok=True)
        (base / f"labels/{split}1.txt").write_text("".join(f"dots/{n}.jpg\n" for n in numbers))
        for n in numbers:
            save(base / f"images/dots/{n}.jpg", n)
    data = DIETDataModule("torchvision:DTD", root=str(tmp_path), image_size=6)
    assert data.names("train") == ["dtd/dtd/images/dots/3.jpg", "dtd/dtd/images/dots/1.jpg"]
    assert data.names("test") == ["dtd/dtd/images/dots/0.jpg"]
    own = ImageFolder(str(base / "images"))
    from_sets = DIETDataModule.from_datasets(Subset(own, [3, 1]), own)
    assert from_sets.names("train") == ["dots/3.jpg", "dots/1.jpg"]
    assert from_sets.names("val") == [f"dots/{n}.jpg" for n in range(4)]


@pytest.mark.parametrize("missing", [False, True])
def test_names_of_hugging_face_images(tmp_path, missing):
    save(tmp_path / "x.png", 3)
    names = ["b/2.png", "a/1.png", None if missing else "c.png"]
    rows = [{"bytes": (tmp_path / "x.png").read_bytes(), "path": name} for name in names]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, struct)}), tmp_path / "x.parquet")
    data = DIETDataModule(f"hf:parquet:{tmp_path}/x.parquet", root=str(tmp_path / "cache"), subset=2)
    everything = DIETDataModule(f"hf:parquet:{tmp_path}/x.parquet", root=str(tmp_path / "cache"), in_memory=True)
    assert everything.names("train") == (None if missing else names)
    if not missing:
        chosen = sorted(np.random.default_rng(0).permutation(3)[:2].tolist())
        assert data.names("train") == [names[n] for n in chosen]


class Own(Dataset):
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.full((3, 6, 6), index, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"]),
        (("a", "b", "c"), ["a", "b", "c"]),
        (lambda: ["a", "b", "c"], ["a", "b", "c"]),
        (["cat", "dog"], None),  # of its classes
        ([1, 2, 3], None),
        ("abc", None),
    ],
)
def test_a_data_set_may_name_its_samples(given, expected):
    assert DIETDataModule.from_datasets(Own(given)).names("train") == expected


def test_arrays_have_no_names_and_unknown_splits_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=np.zeros((4, 6, 6), np.uint8))
    data = DIETDataModule(f"npz:{tmp_path}/x.npz")
    assert data.names("train") is None
    assert DIETDataModule("digits").names("val") is None
    assert DIETDataModule.from_datasets(TensorDataset(torch.zeros(3, 2)), strength=0).names("train") is None
    with pytest.raises(DataError, match=r"no test split: it has \['train'\]"):
        data.names("test")
