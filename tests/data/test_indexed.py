"""IndexedDataset: the right index beside every sample, whatever the samples are, and one sentence when they fail."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from helpers import images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from diet_lightning.data.adapters import adapt
from diet_lightning.data.array_dataset import ArrayDataset
from diet_lightning.data.batch import NO_LABEL, DatumBatch
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import identity_collate
from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import to_tensor

quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def labels(dataset):
    return adapt(dataset).labels


def fingerprint(dataset):
    return adapt(dataset).fingerprint()


class Items(Dataset):
    """Any samples, one at a time; exceptions among them are raised."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]


def picture(value=7, mode="RGB", size=(4, 3)):
    return Image.new("RGB", size, (value, value + 1, value + 2)).convert(mode)


# -- samples -----------------------------------------------------------------------------------------------------------

PIXELS = images(1)[0]


@pytest.mark.parametrize(
    ("sample", "label"),
    [
        (PIXELS, NO_LABEL),
        ((PIXELS,), NO_LABEL),
        ((PIXELS, 3), 3),
        ([PIXELS, 3], 3),
        ((PIXELS, torch.tensor(3)), 3),
        ((PIXELS, np.int64(3)), 3),
        ((PIXELS, None), NO_LABEL),
        ((PIXELS, 3, "more"), 3),
        ({"image": PIXELS, "label": 3}, 3),
        ({"img": PIXELS, "fine_label": 3, "coarse_label": 1}, 3),
        ({"pixel_values": PIXELS, "labels": 3}, 3),
        ({"input": PIXELS, "target": 3}, 3),
        ({"image": PIXELS}, NO_LABEL),
        ({"image": PIXELS, "label": None}, NO_LABEL),
        (PIXELS.numpy(), NO_LABEL),
        ((PIXELS.numpy(), 3), 3),
    ],
)
def test_every_kind_of_sample_gives_input_index_and_label(sample, label):
    data = IndexedDataset(Items([sample, sample]))
    one, batch = data[1], data.__getitems__([1, 0, 1])
    assert isinstance(one, DatumBatch)
    assert isinstance(batch, DatumBatch)
    assert torch.equal(one.input, PIXELS)
    assert (one.index.item(), one.label.item()) == (1, label)
    assert torch.equal(batch.input, PIXELS.expand(3, *PIXELS.shape))
    assert batch.index.tolist() == [1, 0, 1]
    assert batch.label.tolist() == [label] * 3
    for field in (one.index, one.label, batch.index, batch.label):
        assert field.dtype == torch.int64
    assert one.index.shape == one.label.shape == ()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "LA", "YCbCr"])
def test_pil_images_of_any_mode_become_uint8_rgb(mode):
    image = picture(100, mode)
    tensor = IndexedDataset(Items([(image, 1)]))[0].input
    assert (tensor.shape, tensor.dtype) == ((3, 3, 4), torch.uint8)  # (C, H, W) of a 4 × 3 image
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


def test_pil_images_of_16_bits_keep_their_contrast():
    image = Image.fromarray(np.array([[0, 256 * 50, 256 * 100, 256 * 200]], dtype=np.uint16))
    assert to_tensor(image)[0, 0].tolist() == pytest.approx([0, 50, 100, 200], abs=1)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_single_image_of_unknown_range_raises_an_error_rather_than_being_clipped(mode):
    image = Image.fromarray(np.array([[0.25, 0.75]], dtype=np.float32) * (1 if mode == "F" else 1e6)).convert(mode)
    with pytest.raises(DataError, match=r"Sample 0 .*unknown range; set `read.value_range`"):
        IndexedDataset(Items([image]))[0]


@pytest.mark.parametrize("value", ["text", 3, None, [1, 2]], ids=repr)
def test_what_is_no_tensor_array_or_image_is_refused(value):
    with pytest.raises(TypeError, match=f"tensor, an array or a PIL image, but got {type(value).__name__}"):
        to_tensor(value)
    with pytest.raises(DataError, match=f"Sample 1 .*but got {type(value).__name__}"):
        IndexedDataset(Items([(PIXELS, 0), (value, 0)]))[1]


def test_a_mapping_without_an_image_is_refused_with_its_keys():
    with pytest.raises(DataError) as error:
        IndexedDataset(Items([{"picture": PIXELS, "label": 1}]))[0]
    for part in ("Sample 0", "'image'", "['label', 'picture']"):
        assert part in str(error.value)


def test_a_label_in_an_array_of_one_as_medmnist_gives_it():
    assert IndexedDataset(Items([(PIXELS, np.array([3]))]))[0].label.item() == 3


@pytest.mark.parametrize("read", [lambda data: IndexedDataset(data)[1], labels], ids=["sample", "all"])
def test_fractions_are_no_labels(read):
    with pytest.raises(DataError, match=r"0\.7"):
        read(TensorDataset(images(2), torch.tensor([0.0, 0.7])))


# -- the index ---------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 99))
def test_index_is_the_position_in_the_wrapped_data_set_after_subset_and_concat(count, batch_size, seed):
    rng = np.random.default_rng(seed)
    parent = TensorDataset(torch.arange(100) * 10, torch.arange(100))
    keep = rng.choice(100, size=count, replace=False).tolist()
    data = IndexedDataset(ConcatDataset([Subset(parent, keep), Subset(Subset(parent, keep), range(count // 2))]))
    values = torch.tensor(keep + keep[: count // 2])
    assert len(data) == len(values)
    batches = list(DataLoader(data, batch_size, collate_fn=identity_collate))
    index = torch.cat([batch.index for batch in batches])
    assert index.dtype == torch.int64
    assert torch.equal(index, torch.arange(len(values)))  # 0 … N-1, never the parent's
    assert torch.equal(torch.cat([batch.input for batch in batches]), values * 10)
    assert torch.equal(torch.cat([batch.label for batch in batches]), values)


@quick
@given(st.integers(1, 20), st.data(), st.booleans())
def test_whole_batches_of_an_array_equal_sample_wise_reads(count, data, labelled):
    inputs, labels = images(count, side=2), torch.arange(count) * 3 if labelled else None
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=10))
    array = IndexedDataset(ArrayDataset(inputs, labels))
    generic = IndexedDataset(TensorDataset(inputs) if labels is None else TensorDataset(inputs, labels))
    batch, reference = array.__getitems__(rows), generic.__getitems__(rows)
    singles = [array[row] for row in rows]
    for name in DatumBatch._fields:
        fields = [getattr(batch, name), getattr(reference, name), torch.stack([getattr(one, name) for one in singles])]
        assert fields[0].dtype == fields[1].dtype == fields[2].dtype
        assert torch.equal(fields[0], fields[1])
        assert torch.equal(fields[0], fields[2])


def test_array_dataset_alone_is_an_ordinary_data_set():
    data = ArrayDataset(images(4), torch.tensor([3, 1, 2, 0], dtype=torch.int32))
    assert len(data) == 4
    assert data.labels.dtype == torch.int64
    image, label = data[2]
    assert torch.equal(image, images(4)[2])
    assert label == 2
    assert torch.equal(data[[0, 3]][0], images(4)[[0, 3]])
    assert ArrayDataset(images(4)).labels.tolist() == [NO_LABEL] * 4
    with pytest.raises(DataError, match="3 labels for 4 samples"):
        ArrayDataset(images(4), torch.arange(3))


@pytest.mark.parametrize("data", [ArrayDataset(images(3)), Items(images(3))], ids=["array", "any"])
@pytest.mark.parametrize("index", [-1, 3, 100])
def test_an_index_outside_is_refused_also_where_python_would_count_from_the_end(data, index):
    indexed = IndexedDataset(data)
    for read in (lambda: indexed[index], lambda: indexed.__getitems__([0, index])):
        with pytest.raises(DataError, match=rf"index in 0 … 2, but got {index}\."):
            read()


def test_a_data_set_that_changes_its_length_is_refused():
    items = Items(images(5))
    data = IndexedDataset(items)
    items.items.append(items.items[0])
    with pytest.raises(DataError, match="Items changed from 5 to 6"):
        data[0]
    assert len(data) == 5


class Stream(IterableDataset):
    def __iter__(self):
        yield from images(3)


@pytest.mark.parametrize("data", [Stream(), iter([1, 2]), Dataset()], ids=["iterable", "iterator", "no __len__"])
def test_a_data_set_without_length_is_refused(data):
    with pytest.raises(DataError, match=f"{type(data).__name__} has no length.*map-style"):
        IndexedDataset(data)


@pytest.mark.parametrize("data", [[], ArrayDataset(images(3)[:0])], ids=["list", "array"])
def test_an_empty_data_set_is_refused(data):
    with pytest.raises(DataError, match=f"{type(data).__name__} to hold samples, but it is empty"):
        IndexedDataset(data)


def test_samples_of_mixed_shapes_are_refused_with_index_shapes_and_cure():
    data = IndexedDataset(Items([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)]))
    assert len(data.__getitems__([1, 0]).index) == 2
    with pytest.raises(DataError) as error:
        data.__getitems__([1, 0, 2])
    for part in ("Sample 2", "(3, 5, 4)", "sample 1", "(3, 4, 4)", "`image_size`"):
        assert part in str(error.value)


# -- failures of the user's data set -----------------------------------------------------------------------------------

FAILURES = [
    ValueError("no such crop"),
    OSError("disk is gone"),
    RuntimeError("decoder failed"),
    KeyError("labels"),
    IndexError("list index out of range"),
    TypeError("cannot add"),
    SyntaxError("broken PNG file"),  # Pillow's
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda e: type(e).__name__)
def test_an_exception_of_the_users_data_set_becomes_one_sentence_with_the_index(failure):
    data = IndexedDataset(Items([PIXELS, PIXELS, failure]))
    assert data[1].index == 1
    with pytest.raises(DataError) as error:
        data.__getitems__([0, 2])
    assert str(error.value) == f"Sample 2 of Items cannot be read: {failure}"
    assert error.value.__cause__ is failure


@pytest.mark.parametrize(
    "failure", [EOFError("cut short"), AttributeError("no such field"), ZeroDivisionError("0 / 0")], ids=repr
)
def test_any_exception_of_the_users_data_set_names_the_index(failure):
    with pytest.raises(Exception, match="Sample 1 of Items cannot be read"):
        IndexedDataset(Items([PIXELS, failure]))[1]


def message_with(workers, items):
    batches = iter(DataLoader(IndexedDataset(Items(items)), 2, num_workers=workers, collate_fn=identity_collate))
    with pytest.raises(DataError) as error:
        list(batches)
    list(batches)  # ends the worker at once; after an exception the garbage collector would wait for it for 5 s
    return str(error.value)


@pytest.mark.parametrize(
    "items",
    [
        [PIXELS, PIXELS, PIXELS, ValueError("no such crop")],
        [PIXELS, PIXELS, torch.zeros(3, 2, 2), PIXELS],
    ],
    ids=["exception", "shape"],
)
def test_the_sentence_is_the_same_with_and_without_a_worker(items):
    alone = message_with(0, items)
    assert re.fullmatch(r"Sample 3 .*", alone)
    assert message_with(1, items) == alone


def test_the_sentence_is_the_same_with_a_worker_where_it_quotes_another_data_error():
    items = [ValueError("othertool.DataError: bad record")]
    assert message_with(1, items) == message_with(0, items)


# -- fingerprint -------------------------------------------------------------------------------------------------------


class Bytes(Dataset):
    """Says itself what it is."""

    def __init__(self, *parts):
        self.parts = list(parts)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise AssertionError("no sample is read")

    def fingerprint_parts(self):
        return self.parts


KINDS = {
    "array": lambda inputs: ArrayDataset(inputs),
    "tensors": lambda inputs: TensorDataset(inputs, torch.zeros(len(inputs))),
    "any": lambda inputs: Items([(image, 0) for image in inputs]),
    "pictures": lambda inputs: Items([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in inputs]),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_fingerprint_is_equal_for_equal_data_and_changes_with_order_content_and_length(make):
    inputs = images(40)
    kept = fingerprint(make(inputs))
    assert re.fullmatch("[0-9a-f]{32}", kept)
    assert fingerprint(make(inputs.clone())) == kept
    changed = inputs.clone()
    changed[0, 0, 0, 0] += 1
    others = [
        inputs.flip(0),
        inputs[:-1],
        changed,
        inputs.roll(1, 0),
        inputs[:, :, :, :4],
        inputs[:20].repeat(2, 1, 1, 1),
    ]
    assert kept not in [fingerprint(make(other)) for other in others]


def test_fingerprint_of_an_array_sees_every_pixel_but_not_the_labels():
    inputs = images(40)
    kept = fingerprint(ArrayDataset(inputs, torch.zeros(40)))
    assert fingerprint(ArrayDataset(inputs, torch.ones(40))) == kept
    for row in range(40):
        changed = inputs.clone()
        changed[row, 2, 7, 7] += 1
        assert fingerprint(ArrayDataset(changed)) != kept


def test_fingerprint_takes_a_data_sets_own_word():
    assert fingerprint(Bytes(b"a", b"b")) == fingerprint(Bytes(b"a", b"b")) != fingerprint(Bytes(b"a", b"c"))


def test_fingerprint_reads_sixteen_samples_of_a_large_data_set_ends_included():
    class Counting(Items):
        reads: list = []  # noqa: RUF012

        def __getitem__(self, index):
            self.reads.append(index)
            return torch.tensor([index])

    fingerprint(Counting(range(1000)))
    assert len(set(Counting.reads)) == 16
    assert {0, 999} <= set(Counting.reads)
    assert len(Counting.reads) == 32


class Noisy(Items):
    """A transform that draws again at every read."""

    def __getitem__(self, index):
        return self.items[index] + torch.rand(self.items[index].shape)


def test_fingerprint_is_stable_under_random_transforms_but_knows_the_shape():
    inputs = torch.zeros(20, 3, 4, 4)
    kept = fingerprint(Noisy(inputs))
    assert fingerprint(Noisy(inputs)) == kept
    assert fingerprint(Noisy(inputs[:, :, :, :2])) != kept
    assert fingerprint(Noisy(inputs[:-1])) != kept


@pytest.mark.parametrize("make", [KINDS["array"], KINDS["any"]], ids=["array", "any"])
def test_fingerprint_of_tensors_that_numpy_does_not_know(make):
    inputs = images(4).bfloat16()
    assert fingerprint(make(inputs)) == fingerprint(make(inputs.clone())) != fingerprint(make(inputs + 16))


class Mirrored(Items):
    """A transform that comes out equal every other time."""

    def __getitem__(self, index):
        return self.items[index].flip(2) if torch.rand(()) < 0.5 else self.items[index]


def test_fingerprint_is_stable_under_random_flips():
    inputs = torch.arange(20 * 3 * 4 * 4.0).reshape(20, 3, 4, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert len({fingerprint(Mirrored(inputs)) for _ in range(5)}) == 1


# -- labels ------------------------------------------------------------------------------------------------------------


class Labelled(Items):
    def __init__(self, **attributes):
        super().__init__(images(4))
        self.__dict__.update(attributes)

    def __getitem__(self, index):
        raise AssertionError("no sample is read")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (TensorDataset(images(4), torch.tensor([3, 1, 2, 0], dtype=torch.uint8)), [3, 1, 2, 0]),
        (ArrayDataset(images(4), torch.tensor([3, 1, 2, 0])), [3, 1, 2, 0]),
        (ArrayDataset(images(4)), [-1] * 4),
        (Labelled(targets=[3, 1, 2, 0]), [3, 1, 2, 0]),
        (Labelled(labels=np.array([3, 1, 2, 0], dtype=np.uint8)), [3, 1, 2, 0]),
        (Labelled(labels=None, targets=torch.tensor([3, 1, 2, 0])), [3, 1, 2, 0]),
        (Subset(Labelled(targets=[3, 1, 2, 0]), [2, 0]), [2, 3]),
        (Subset(Subset(Labelled(targets=[3, 1, 2, 0]), [2, 0, 1]), np.array([1])), [3]),
    ],
)
def test_labels_are_found_without_reading_a_sample(data, expected):
    found = labels(data)
    assert found.dtype == torch.int64
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(images(4)),
        TensorDataset(images(4), torch.zeros(4, 2)),  # targets of another kind
        Labelled(),
        Labelled(targets=[1, 2]),  # not one per sample
        Subset(Labelled(), [0, 1]),
    ],
)
def test_no_labels_where_a_data_set_keeps_none(data):
    assert labels(data) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"labels": ["cat", "dog", "cat", "dog"]},
        {"labels": torch.eye(4)},  # one hot
        {"targets": [{"boxes": []}] * 4},
        {"samples": ["a.png", "b.png", "c.png", "d.png"]},
        {"samples": [("a.png", "mask_a.png")] * 4},
        {"samples": [("a.png", 0)] * 3},  # not one per sample
        {"_samples": [("a.png", None)] * 4},
    ],
    ids=["names", "one hot", "detection", "paths", "pairs of paths", "too few", "without labels"],
)
def test_attributes_that_hold_no_labels_are_ignored(attributes):
    found = labels(Labelled(**attributes))
    assert found is None or found.tolist() == [NO_LABEL] * 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("workers", [0, 1])
def test_inputs_of_a_measured_split_must_be_finite(bad, workers):
    inputs = torch.zeros(6, 3, 2, 2)
    inputs[4, 1, 0, 0] = bad
    items = Items(inputs)
    items.names = [f"{n}.tif" for n in range(6)]
    batches = DataLoader(IndexedDataset(items, "val"), 3, num_workers=workers, collate_fn=identity_collate)
    with pytest.raises(DataError) as error:
        list(batches)
    assert str(error.value).startswith("1 input(s) of the val split hold NaN or infinite values, index 4 (4.tif): ")
    assert len(list(DataLoader(IndexedDataset(items), 3, collate_fn=identity_collate))) == 2  # FiniteGuard's work


def test_all_inputs_that_are_not_finite_are_counted_and_some_named():
    data = IndexedDataset(ArrayDataset(torch.full((20, 2), torch.nan)), "test")
    with pytest.raises(
        DataError, match=r"^20 input\(s\) of the test split .* index 0, 1, 2, 3, 4, 5, 6, 7, …: correct"
    ):
        data.__getitems__(list(range(20)))
    assert len(IndexedDataset(ArrayDataset(images(3)), "val").__getitems__([0, 2]).index) == 2
