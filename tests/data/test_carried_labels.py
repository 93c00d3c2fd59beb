"""Labels of custom data sets are those that their samples carry, whatever an attribute lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import TinyNet, images
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from diet_lightning import DIETDataModule, DIETModule, OnlineLinearProbe
from diet_lightning.data import carried_labels
from diet_lightning.errors import DataError

COUNT = 24


class Listed(Dataset):
    """Samples whose labels are a function of what an attribute lists, as after a `target_transform`."""

    def __init__(self, listed, transform=lambda label: label, count=COUNT, attribute="targets"):
        self.pixels, self.transform, self.listed = images(count), transform, listed
        setattr(self, attribute, listed)
        self.reads = []

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        self.reads.append(index)
        return self.pixels[index], self.transform(self.listed[index])


class Carrying(Dataset):
    """Samples with labels that nothing lists."""

    def __init__(self, labels):
        self.labels_of_samples, self.pixels = labels, images(len(labels))

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index], self.labels_of_samples[index]


def opened(*splits, **options):
    data = DIETDataModule.from_datasets(*splits, batch_size=8, **options)
    data.setup()
    return data


def carried(data, split="train"):
    return torch.cat([batch.label for batch in data.raw_batches(split)]).tolist()


TENS = [10 * (n % 3) for n in range(COUNT)]


def test_listed_labels_that_samples_carry_are_taken_after_a_few_reads(monkeypatch):
    monkeypatch.setattr(carried_labels, "PROBES", 5)
    dataset = Listed([n % 3 for n in range(COUNT)])
    data = opened(dataset)
    assert (data.num_classes, data.notes) == (3, [])
    assert data.train_labels.tolist() == [n % 3 for n in range(COUNT)] == carried(data)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(COUNT)), lambda d: ConcatDataset([d])])
@pytest.mark.parametrize("attribute", ["targets", "labels"])
def test_a_transform_of_the_target_wins_over_the_listing(make_trainer, wrap, attribute):
    data = opened(wrap(Listed([n % 8 for n in range(COUNT)], lambda label: label // 4, attribute=attribute)))
    assert data.num_classes == 2
    assert data.train_labels.tolist() == [n % 8 // 4 for n in range(COUNT)] == carried(data)
    assert f"Labels that '{attribute}' lists differ from those of the samples in the train split" in data.notes[0]
    probe = OnlineLinearProbe()
    make_trainer(max_epochs=1, callbacks=[probe]).fit(DIETModule(TinyNet()), data)
    assert probe.classifier.out_features == 2


def test_a_label_that_differs_at_the_end_only_is_found():
    data = opened(Listed(list(range(COUNT)), lambda label: min(label, COUNT - 2)))
    assert data.num_classes == COUNT - 1


def test_the_listing_that_agrees_is_taken():
    dataset = Listed([n % 3 for n in range(COUNT)])
    dataset.labels = [7] * COUNT  # of something else
    data = opened(dataset)
    assert (data.num_classes, data.notes) == (3, [])
    assert data.train_labels.tolist() == [n % 3 for n in range(COUNT)]


@pytest.mark.parametrize(
    ("labels", "numbers", "names", "said"),
    [
        (["dog", "cat"] * 12, [1, 0] * 12, ["cat", "dog"], "Labels are text"),
        ([10**9, 5] * 12, [1, 0] * 12, ["5", "1000000000"], "are numbered 0 to 1"),
        ([-100, 1] * 12, [-1, 1] * 12, None, "12 label(s) are -100"),
        ([torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])] * 12, [1, 0] * 12, None, "one-hot"),
        ([0.0, float("nan")] * 12, [0, -1] * 12, None, "12 label(s) are NaN"),
        ([np.zeros(5), np.ones(5)] * 12, [-1] * 24, None, "(N, 5) are multi-label"),
        ([0.25, 0.5] * 12, [-1] * 24, None, "target of regression"),
        ([{"boxes": [1]}] * 24, [-1] * 24, None, "type dict are not classes"),
    ],
)
def test_labels_that_nothing_lists(labels, numbers, names, said):
    data = opened(Carrying(labels))
    assert carried(data) == numbers == data.train_labels.tolist()
    assert data.class_names == names
    assert data.num_classes == (max(numbers) + 1 or None)
    assert said in " ".join(data.notes)


def test_other_targets_are_not_read_to_the_end(monkeypatch):
    monkeypatch.setattr(carried_labels, "PROBES", 4)
    dataset = Listed([[0, 1, 1]] * COUNT, attribute="anything")
    carried_labels.resolve_labels(
        carried_labels.Source(carried_labels.MapDataset(dataset)), carried_labels.ReadConfig()
    )
    assert len(dataset.reads) == 5  # one of them for the keys of mappings


def test_integers_that_nothing_lists_are_read_once(make_trainer):
    labels = [n % 3 for n in range(COUNT)]
    for train in (Carrying(labels), list(zip(images(COUNT), labels, strict=True))):
        data = opened(train, list(zip(images(6), labels, strict=False)))
        assert (data.num_classes, data.notes) == (3, [])
        assert data.train_labels.tolist() == carried(data) == labels
        probe = OnlineLinearProbe()
        trainer = make_trainer(max_epochs=1, callbacks=[probe])
        trainer.fit(DIETModule(TinyNet()), data)
        assert probe.classifier.out_features == 3
        assert "val/probe_top1" in trainer.callback_metrics


def test_integers_of_a_large_data_set_that_nothing_lists_are_left_to_the_samples(monkeypatch):
    monkeypatch.setattr(carried_labels, "READ_TO_LABEL", COUNT - 1)
    data = opened(Carrying([n % 3 for n in range(COUNT)]))
    assert (data.num_classes, data.train_labels, data.notes) == (None, None, [])
    assert carried(data) == [n % 3 for n in range(COUNT)]
    kept = opened(list(zip(images(COUNT), [n % 3 for n in range(COUNT)], strict=True)))  # reading a list costs nothing
    assert kept.num_classes == 3


def save_folders(root, classes):
    for name in classes:
        (root / name).mkdir(parents=True)
        for n in range(4):
            Image.new("RGB", (8, 8), (n, n, n)).save(root / name / f"{n}.png")


def test_class_names_of_torchvision_are_kept_and_number_the_splits_together(tmp_path):
    save_folders(tmp_path / "train", ["ant", "bee", "cow"])
    save_folders(tmp_path / "val", ["ant", "cow"])
    train, val = (ImageFolder(tmp_path / split) for split in ("train", "val"))
    wrapped = (train, Subset(train, range(12)), ConcatDataset([Subset(train, range(5)), Subset(train, range(5, 12))]))
    for each in wrapped:
        data = opened(each)
        assert list(data.class_names) == ["ant", "bee", "cow"]
        assert carried(data) == [0] * 4 + [1] * 4 + [2] * 4
    data = opened(train, val)
    assert [data.class_names[n] for n in carried(data, "val")] == ["ant"] * 4 + ["cow"] * 4
    changed = opened(ImageFolder(tmp_path / "train", target_transform=lambda label: 2 - label))
    assert changed.class_names is None  # the names are those of other labels


def test_splits_are_numbered_together_though_one_lists_nothing():
    data = opened(Listed(TENS), Carrying([20, 10] * 4), TensorDataset(images(2), torch.tensor([10, 0])))
    assert (data.class_names, carried(data, "val")) == (["0", "10", "20"], [2, 1] * 4)
    assert carried(data, "test") == [1, 0]
    data = opened(Listed([100 * n for n in TENS]), Carrying([2000, 1000] * 4))
    assert data.class_names == ["0", "1000", "2000"]
    assert carried(data, "val") == [2, 1] * 4


def test_given_names_stay_and_a_label_beyond_them_is_refused():
    names = ["a", "b", "c"]
    assert opened(Carrying([0, 1, 2] * 8), class_names=names).num_classes == 3
    with pytest.raises(DataError, match="Label 3 of train sample 1 has no class name"):
        opened(Carrying([0, 3] * 12), class_names=names)


@pytest.mark.parametrize(
    ("second", "numbers"),
    [
        (torch.eye(3)[torch.arange(COUNT) % 3], [n % 3 for n in range(COUNT)]),
        ((torch.arange(COUNT) % 3).float()[:, None], [n % 3 for n in range(COUNT)]),
        (torch.rand(COUNT), [-1] * COUNT),
        (torch.zeros(COUNT, 3, 8, 8), [-1] * COUNT),
    ],
    ids=["one-hot", "column of floats", "regression", "masks"],
)
def test_tensors_of_labels(second, numbers):
    data = opened(TensorDataset(images(COUNT), second))
    assert carried(data) == numbers
    assert data.notes


def test_a_subset_keeps_the_new_labels():
    data = opened(Listed(TENS, lambda label: str(label)), subset=7)
    chosen = sorted(np.random.default_rng(0).permutation(COUNT)[:7].tolist())
    assert carried(data) == [TENS[n] // 10 for n in chosen]
    assert data.class_names == ["0", "10", "20"]


class Mappings(Dataset):
    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


def test_keys_of_mappings_are_chosen_and_told():
    from diet_lightning.data.read_config import ReadConfig

    dataset = Mappings(image=images(COUNT), label=[n % 2 for n in range(COUNT)], other=images(COUNT, seed=1), kind=TENS)
    assert carried(opened(dataset)) == [n % 2 for n in range(COUNT)]
    data = opened(dataset, read=ReadConfig(image_column="other", label_column="kind"))
    assert [int(data.class_names[n]) for n in carried(data)] == TENS
    assert torch.equal(data.raw_samples("train", [3]).input[0], images(COUNT, seed=1)[3])
    with pytest.raises(DataError, match=r"no column of images: set `read.image_column`"):
        opened(Mappings(photos=images(COUNT)))


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
def test_hugging_face_data_sets_passed_in_python(form):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.new("RGB", (4, 4), (n, n, n)) for n in range(COUNT)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "more": datasets.ClassLabel(names=["x"]),
        }
    )
    rows = {"image": pictures, "label": [n % 2 for n in range(COUNT)], "more": [0] * COUNT}
    whole = datasets.Dataset.from_dict(rows, features).with_format(form)
    data = opened(whole, Subset(whole, [1, 3]))
    assert (list(data.class_names), data.num_classes) == (["a", "b"], 2)
    assert (carried(data), carried(data, "val")) == ([n % 2 for n in range(COUNT)], [1, 1])
    assert data.notes[0] == "Labels are column 'label' (also: 'more'); set read.label_column to choose another."
    renamed = datasets.Dataset.from_dict({"x": rows["label"]}, datasets.Features({"x": features["label"]}))
    keyed = renamed.with_transform(
        lambda batch: {"pixel_values": [images(1)[0] for _ in batch["x"]], "label": batch["x"]}
    )
    assert carried(opened(keyed)) == rows["label"]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (8, 8), (2, 3)])
def test_masks_are_no_classes(shape):
    masks = torch.randint(0, 2, (COUNT, *shape))
    data = opened(list(zip(images(COUNT), masks, strict=True)))
    assert data.num_classes is None
    squeezed = masks[0].squeeze(0).shape if shape[0] == 1 else shape
    assert any(f"(N, {', '.join(map(str, squeezed))}) are not classes" in note for note in data.notes)


def test_fractions_that_a_data_set_of_hugging_face_lists_are_no_classes():
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in images(COUNT)]
    columns = {"image": pictures, "label": [n / 4 for n in range(COUNT)]}
    data = opened(datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image()))
    assert data.num_classes is None
    assert any("0.25, are a target of regression" in note for note in data.notes)
