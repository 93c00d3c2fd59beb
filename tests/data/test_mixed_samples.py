"""Samples and splits that differ from the first: seen with their right values, or an error says how they differ."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, ReadConfig
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.transforms.geometry import Fit

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
UNIT = (BYTES / 255).astype(np.float32)
DEEP = RNG.integers(0, 4096, (12, 16, 16)).astype(np.uint16)  # 12 bits


def opened(kind, tmp_path, train, val=None, **options):
    """The same arrays as a file, or as data sets in Python."""
    if kind == "npz":
        np.savez(tmp_path / "a.npz", train_images=train, **({} if val is None else {"val_images": val}))
        data = DIETDataModule(f"npz:{tmp_path / 'a.npz'}", batch_size=4, **options)
    else:
        make = list if kind == "own" else lambda arrays: TensorDataset(torch.from_numpy(arrays))
        parts = [make(each) for each in (train, val) if each is not None]
        data = DIETDataModule.from_datasets(*parts, batch_size=4, **options)
    data.setup()
    return data


def unit(data, split="train"):
    """What the network sees of a split, with mean and standard deviation undone."""
    batches = torch.cat([batch.input for batch in data.eval_batches(split)]).double().numpy()
    mean, std = (np.array(each).reshape(1, -1, 1, 1) for each in (data._pipeline.mean, data._pipeline.std))
    return batches * std + mean


KINDS = pytest.mark.parametrize("kind", ["npz", "own", "tensors"])


# -- splits ------------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (UNIT, BYTES, r"the val split are uint8, but training samples have values that are scaled from 0 to 1"),
        (BYTES, UNIT, r"The val split has values of more than 8 bits, from 0 to 1, but training samples have 8 bits"),
        (UNIT, BYTES.astype(np.float32), r"9\d.* % of the values of the val split.* from 0 to 1 of the training samples"),
        (DEEP.astype(np.int32) // 4, DEEP.astype(np.int32), r"7\d.* % of the values of the val split.* from 0 to 1023"),
        (UNIT, BYTES.astype(np.int64), r"9\d.* % of the values of the val split"),
    ],
    ids=["floats, bytes", "bytes, floats", "unit, 255", "10 bits, 12 bits", "unit, int64"],
)  # fmt: skip
def test_a_split_on_another_scale_raises_an_error_and_one_range_cures_it(tmp_path, kind, train, val, said):
    with pytest.raises(DataError, match=rf"{said}.*`read.value_range`"):
        opened(kind, tmp_path, train, val)
    data = opened(kind, tmp_path, train, val, read=ReadConfig(value_range=[0, 4095]))
    for split, arrays in (("train", train), ("val", val)):
        expected = arrays.astype(np.float64).reshape(12, -1, 16, 16) / 4095
        np.testing.assert_allclose(unit(data, split), expected, atol=0.5 / 255 + 1e-6)


@pytest.mark.filterwarnings("ignore:An image has values")  # when it is read
@KINDS
def test_a_few_clipped_values_of_a_split_are_counted(tmp_path, kind):
    val = UNIT.copy()
    val.reshape(-1)[:92] = 7.0  # of 9,216
    data = opened(kind, tmp_path, UNIT, val)
    np.testing.assert_allclose(unit(data, "val"), np.minimum(val, 1.0), atol=1e-6)
    told = [note for note in data.notes if "are clipped" in note]
    assert len(told) == 1
    assert told[0].startswith(
        "0.998 % of the values of the val split, which go from 0 to 7, lie outside of the range from 0 to 1"
    )
    given = opened(kind, tmp_path, UNIT, read=ReadConfig(value_range=[0, 0.5]))  # a window that the user has chosen
    clipped = 100 * np.mean(UNIT > 0.5)
    assert any(note.startswith(f"{clipped:.3g} % of the values of the train split") for note in given.notes)


@KINDS
def test_splits_of_the_same_scale_need_no_note(tmp_path, kind):
    data = opened(kind, tmp_path, UNIT, UNIT[:3] / 2)
    assert not [note for note in data.notes if "scaled" in note or "clipped" in note]
    np.testing.assert_allclose(unit(data, "val"), UNIT[:3] / 2, atol=1e-6)


@KINDS
def test_values_of_a_split_that_are_not_finite_are_named_with_the_split(tmp_path, kind):
    val = UNIT.copy()
    val[5, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match="Sample 5 of the val split has values that are NaN or infinite"):
        opened(kind, tmp_path, UNIT, val)


@KINDS
@pytest.mark.parametrize("arrays", [BYTES, UNIT], ids=["bytes", "floats"])
def test_a_split_of_another_shape_raises_an_error(tmp_path, kind, arrays):
    with pytest.raises(DataError, match=r"the val split have shape \(3, 16, 8\).* \(3, 16, 16\): set `image_size`"):
        opened(kind, tmp_path, arrays, arrays[..., :8])
    for train, val in ((arrays, arrays[:, :1]), (arrays[:, :1], arrays)):
        for options in ({}, {"image_size": 12}):
            with pytest.raises(
                DataError, match=rf"the val split have {val.shape[1]} channel\(s\).* have {train.shape[1]}:"
            ):
                opened(kind, tmp_path, train, val, **options)
    data = opened(kind, tmp_path, arrays, arrays[..., :8], image_size=12)
    expected = Fit((12, 12)).batch(torch.from_numpy(arrays[..., :8].copy()))
    scale = 255 if arrays.dtype == np.uint8 else 1
    np.testing.assert_allclose(unit(data, "val"), expected.double().numpy() / scale, atol=1e-5)


@KINDS
def test_signals_of_another_length_or_dtype_raise_an_error(tmp_path, kind):
    rows = RNG.normal(size=(12, 2, 40)).astype(np.float32)
    with pytest.raises(DataError, match=r"the val split have shape \(2, 30\).* \(2, 40\): give all samples one shape"):
        opened(kind, tmp_path, rows, rows[..., :30], strength=0)
    with pytest.raises(DataError, match=r"the val split are torch.uint8, but training samples are torch.float32"):
        opened(kind, tmp_path, rows[:, 0], np.ones((12, 40), np.uint8), strength=0)


# -- samples -----------------------------------------------------------------------------------------------------------


def own(*items, **options):
    data = DIETDataModule.from_datasets(list(items), batch_size=4, **options)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("first", "other", "said"),
    [
        (BYTES[0], UNIT[0], "it is an array of floats with 3 axes, but sample 0 is an array of uint8 with 3 axes"),
        (UNIT[0], BYTES[0], "it is an array of uint8 with 3 axes, but sample 0 is an array of floats with 3 axes"),
        (BYTES[0], BYTES[0].astype(np.uint16) * 257, "it is an array of integers with 3 axes, but sample 0 is an array of uint8"),
        (BYTES[0].transpose(1, 2, 0), BYTES[0, 0], "it is an array of uint8 with 2 axes, but sample 0 is an array of uint8 with 3"),
        (Image.fromarray(BYTES[0, 0]), BYTES[0], "it is an array of uint8 with 3 axes, but sample 0 is a PIL image"),
    ],
    ids=["float", "byte", "uint16", "gray", "array"],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_a_sample_of_another_kind_than_the_first_raises_an_error(monkeypatch, first, other, said, late):
    items = [first] * 12
    items[5] = other
    if late:  # not among the samples that are looked at first
        monkeypatch.setattr("diet_lightning.data.adapters.PROBES", 2)
        monkeypatch.setattr("diet_lightning.data.adapters.SCALED_SAMPLES", 2)
    with pytest.raises(DataError, match=rf"Sample 5 of list cannot be read: {said}.*convert all samples alike"):
        unit(own(*items, strength=0))


def test_pil_images_of_8_and_of_more_bits_are_each_scaled_by_their_own_range():
    low = (DEEP >> 4).astype(np.uint8)
    data = own(Image.fromarray(low[0]), *map(Image.fromarray, DEEP[1:]))
    expected = np.concatenate([low[:1] / 255, DEEP[1:] / 4095])[:, None].repeat(3, 1)
    np.testing.assert_allclose(
        data.raw_samples("train", range(12)).input.numpy() / 255, expected, atol=0.5 / 255 + 1e-6
    )
    assert any(note.startswith("11 of the 12 images looked at have more than 8 bits") for note in data.notes)
    assert any("4095 becomes 1" in note for note in data.notes)


def test_a_late_pil_image_of_more_bits_raises_an_error(monkeypatch):
    monkeypatch.setattr("diet_lightning.data.adapters.PROBES", 2)
    items = [Image.fromarray((each >> 4).astype(np.uint8)) for each in DEEP]
    items[5] = Image.fromarray(DEEP[5])
    with pytest.raises(
        DataError, match=r"Sample 5 .*more than 8 bits, unlike the images looked at first; set `read.value_"
    ):
        unit(own(*items))


def test_values_beyond_those_looked_at_are_told(monkeypatch):
    monkeypatch.setattr("diet_lightning.data.adapters.SCALED_SAMPLES", 2)
    items = [*UNIT]
    items[5] = UNIT[5] * 3
    with pytest.warns(UserWarning, match=r"values from 0 to 3: those outside of 0 to 1 are clipped"):
        unit(own(*items))


def test_a_value_that_is_not_finite_is_named_by_its_sample():
    items = UNIT.copy()
    items[3, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="Sample 3 of the train split has values that are NaN or infinite"):
        own(*items)


@pytest.mark.parametrize("form", [lambda array: array, Image.fromarray], ids=["arrays", "PIL"])
@pytest.mark.parametrize("strength", [0, 3])
def test_images_of_several_sizes_are_brought_to_the_image_size(form, strength):
    sizes = [(20, 24), (16, 16), (40, 18), (9, 12)]
    arrays = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    data = own(*map(form, arrays), image_size=16, strength=strength, mean=[0.0] * 3, std=[1.0] * 3)
    expected = [Fit((16, 16)).apply(0, torch.from_numpy(a.transpose(2, 0, 1).copy()), a.shape[:2]) for a in arrays]
    np.testing.assert_allclose(unit(data), torch.stack(expected).numpy() / 255, atol=1e-6)
    batch = next(iter(data.train_dataloader()))
    assert batch.input.shape == (4, 3, 16, 16)
    with pytest.raises(DataError, match=r"Sample \d has shape .*set `image_size`"):
        unit(own(*map(form, arrays)))


def test_images_of_several_channels_raise_an_error_where_sizes_are_brought_to_one():
    with pytest.raises(DataError, match=r"Sample 1 has 1 channels, but sample 0 has 3: convert them alike"):
        unit(own(BYTES[0], BYTES[1, :1], BYTES[2], BYTES[3], image_size=12))


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (b"png", r"got bytes: .*PIL.Image.open\(io.BytesIO"),
        ("a.png", r"got str: .*PIL.Image.open\(path\)"),
        ({"bytes": b"", "path": None}, r"got dict: .*cast_column"),
        ([[0, 1], [1, 0]], r"got list: .*numpy.asarray"),
    ],
    ids=["bytes", "path", "dict", "list"],
)
def test_samples_that_are_not_decoded_are_told_with_the_cure(value, cure):
    with pytest.raises(DataError, match=rf"Sample 0 of list cannot be read: .*{cure}"):
        own(*[(value, 0)] * 4)


def test_arrays_that_cannot_be_written_to_are_read_without_a_warning():
    frozen = BYTES.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(unit(own(*frozen)), BYTES / 255, atol=1e-6)


# -- two axes, and values that use little of their range ---------------------------------------------------------------


@KINDS
def test_integers_of_two_axes_that_may_be_signals_raise_an_error(tmp_path, kind):
    signals = RNG.integers(-500, 500, (12, 6, 400)).astype(np.int16)
    with pytest.raises(DataError, match=r"\(6, 400\) that hold integers may be signals or gray images.*astype"):
        opened(kind, tmp_path, signals)
    data = opened(kind, tmp_path, signals.astype(np.float32), strength=0)
    np.testing.assert_array_equal(torch.cat([b.input for b in data.eval_batches("train")]).numpy(), signals)
    assert opened(kind, tmp_path, signals[:, None]).input_shape == (1, 6, 400)


@KINDS
def test_two_axes_that_are_as_those_of_images_are_told(tmp_path, kind):
    floats = opened(kind, tmp_path, DEEP.astype(np.float32), strength=0)
    assert any("that hold floats are signals, whose values are kept" in n and "a[:, None]" in n for n in floats.notes)
    with pytest.raises(ConfigurationError, match=r"set `strength` to 0, or give gray images an axis .*a\[:, None\]"):
        opened(kind, tmp_path, DEEP.astype(np.float32))
    integers = opened(kind, tmp_path, DEEP.astype(np.int32))
    assert any("that hold integers are gray images; convert signals to floats" in note for note in integers.notes)


@KINDS
def test_a_few_hot_pixels_that_leave_few_gray_levels_are_told(tmp_path, kind):
    arrays = RNG.integers(0, 1001, (12, 1, 32, 32)).astype(np.int32)
    assert not [note for note in opened(kind, tmp_path, arrays).notes if "gray levels" in note]
    arrays[7, 0, 3, 3] = 65535
    told = [note for note in opened(kind, tmp_path, arrays).notes if "gray levels" in note]
    assert len(told) == 1
    for part in ("99.8% of the values lie between", "0.015 of the range from 0 to 65535", "about 5 gray levels"):
        assert part in told[0]
