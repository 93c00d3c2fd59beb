"""The axes and values of arrays, from files and from data sets in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, ReadConfig
from diet_lightning.errors import DataError

RNG = np.random.default_rng(0)


class Items:
    """A data set of a user."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index], index % 2


def modules(tmp_path, arrays, **options):
    """The same samples as a file, as tensors and as a custom data set."""
    np.savez(tmp_path / "a.npz", train_images=arrays)
    yield DIETDataModule(f"npz:{tmp_path / 'a.npz'}", batch_size=2, **options)
    yield DIETDataModule.from_datasets(Items(list(arrays)), batch_size=2, **options)
    if arrays.dtype not in (np.uint16, np.uint32):
        yield DIETDataModule.from_datasets(TensorDataset(torch.from_numpy(arrays)), batch_size=2, **options)


def stored(data):
    return data.raw_samples("train", range(data.num_samples)).input


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_channels_last_are_put_first_and_told(tmp_path, channels, dtype):
    last = RNG.integers(0, 256, (6, 20, 24, channels)).astype(dtype)
    last[0, 0, 0, 0] = 255
    for data in modules(tmp_path, last):
        assert data.input_shape == (channels, 20, 24)
        found = stored(data).double() / (255 if stored(data).dtype == torch.uint8 else 1)
        np.testing.assert_allclose(found.numpy(), last.transpose(0, 3, 1, 2) / 255, atol=1e-6)
        assert any("channels last" in note and "read.channels" in note for note in data.notes)
    for data in modules(tmp_path, np.ascontiguousarray(last.transpose(0, 3, 1, 2))):
        assert data.input_shape == (channels, 20, 24)
        assert not any("channels last" in note for note in data.notes)


def test_a_shape_that_can_be_read_both_ways_raises_an_error_and_the_option_decides(tmp_path):
    arrays = RNG.integers(0, 256, (4, 12, 12, 12), dtype=np.uint8)
    for data in modules(tmp_path, arrays):
        with pytest.raises(
            DataError, match=r"\(12, 12, 12\) may have their channels first or last: set `read.channels`"
        ):
            data.setup()
    for data in modules(tmp_path, arrays, read=ReadConfig(channels="last")):
        np.testing.assert_array_equal(stored(data).numpy(), arrays.transpose(0, 3, 1, 2))
    for data in modules(tmp_path, arrays, read=ReadConfig(channels="first")):
        np.testing.assert_array_equal(stored(data).numpy(), arrays)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [
        (np.uint16, 0, 60000, (0, 65535)),
        (np.uint16, 0, 1000, (0, 1023)),
        (np.int16, -1000, 2000, (-1000, 2000)),
        (np.int32, 0, 255, (0, 255)),
        (np.int64, 0, 255, (0, 255)),
        (np.int64, 0, 1, (0, 1)),
        (np.bool_, 0, 1, (0, 1)),
        (np.float16, 0, 255, (0, 255)),
        (np.float32, 0, 255, (0, 255)),
        (np.float64, 0, 1, (0, 1)),
        (np.float32, -2, 3, (-2, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("strength", [0, 3])
def test_values_of_any_dtype_are_scaled_to_0_to_1(tmp_path, dtype, low, high, expected, strength):
    values = (
        RNG.uniform(low, high, (6, 3, 10, 12))
        if np.dtype(dtype).kind == "f"
        else RNG.integers(low, high + 1, (6, 3, 10, 12))
    )
    arrays = values.astype(dtype)
    arrays[1, 0, 0, 0], arrays[4, 2, 3, 3] = low, high  # not in the first image
    wanted = (arrays.astype(np.float64) - expected[0]) / (expected[1] - expected[0])
    for data in modules(tmp_path, arrays, strength=strength, mean=[0.0] * 3, std=[1.0] * 3):
        found = data.network_inputs(stored(data)).double().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert torch.isfinite(data.network_inputs(stored(data), draw=1)).all()
        told = any("are scaled" in note for note in data.notes)
        assert told == (not (np.dtype(dtype).kind == "f" and expected == (0, 1)))


def test_the_range_is_that_of_the_training_samples_or_the_given_one(tmp_path):
    train = RNG.integers(0, 4096, (4, 8, 8, 3)).astype(np.uint16)
    np.savez(tmp_path / "a.npz", train_images=train, val_images=train[:2] // 8)
    data = DIETDataModule(f"npz:{tmp_path / 'a.npz'}", batch_size=2)
    val = data.raw_samples("val", range(2)).input
    np.testing.assert_allclose(val.numpy(), (train[:2] // 8).transpose(0, 3, 1, 2) / 4095, atol=1e-6)
    given = DIETDataModule(f"npz:{tmp_path / 'a.npz'}", batch_size=2, read=ReadConfig(value_range=[0, 65535]))
    np.testing.assert_allclose(stored(given).numpy(), train.transpose(0, 3, 1, 2) / 65535, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    arrays = RNG.random((5, 3, 8, 9), dtype=np.float32)
    arrays[3, 1, 2, 2] = value
    for data in modules(tmp_path, arrays):
        with pytest.raises(DataError, match=r"Sample [03] .*NaN or infinite"):
            data.setup()


def test_two_axes_of_integers_are_gray_images_and_of_floats_signals(tmp_path):
    for dtype, shape in ((np.uint8, (1, 9, 10)), (np.uint16, (1, 9, 10)), (np.float32, (9, 10))):
        for data in modules(tmp_path, RNG.integers(0, 256, (4, 9, 10)).astype(dtype), strength=0):
            assert data.input_shape == shape


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float16, np.float64])
def test_rows_of_any_dtype_become_floats(tmp_path, dtype):
    rows = RNG.integers(0, 2, (6, 5)).astype(dtype)
    for data in modules(tmp_path, rows, strength=0):
        assert data.input_shape == (5,)
        found = data.network_inputs(stored(data))
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), rows.astype(np.float32))


def test_pil_images_of_16_bits_and_with_transparency_from_a_custom_data_set():
    wide = [Image.fromarray(RNG.integers(0, 4096, (8, 8)).astype(np.uint16)) for _ in range(4)]
    data = DIETDataModule.from_datasets(Items(wide), batch_size=2)
    expected = np.stack([np.asarray(image) for image in wide]) / 4095
    np.testing.assert_allclose(stored(data)[:, 0].double().numpy() / 255, expected, atol=0.5 / 255 + 1e-6)
    clear = [Image.new("RGBA", (8, 8), (0, 0, 0, 0))] * 2
    assert int(stored(DIETDataModule.from_datasets(Items(clear), batch_size=2)).min()) == 255
