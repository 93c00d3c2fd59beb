"""Images as tensors: every mode that Pillow has, compared with float64 formulas."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diet_lightning.transforms.convert import (
    OPERATIONS,
    PixelFormat,
    channels_last,
    infer_value_range,
    to_tensor,
    to_unit,
)

RNG = np.random.default_rng(0)
BT601 = np.array([0.299, 0.587, 0.114])


def seen(image, **options):
    """The image as 0 … 1, (H, W, C), as float64."""
    return PixelFormat(**options)(image).permute(1, 2, 0).double().numpy() / 255.0


def pixels(*shape, low=0, high=256):
    return RNG.integers(low, high, shape, dtype=np.uint8)


def over(color, alpha, background):
    return color * alpha + background * (1.0 - alpha)


def reference(mode, array, palette):
    """What a viewer with a white background shows, in float64."""
    values = array.astype(np.float64) / 255.0
    if mode == "L":
        return np.repeat(values[..., None], 3, 2)
    if mode == "1":
        return np.repeat((array > 0)[..., None].astype(np.float64), 3, 2)
    if mode == "LA":
        return over(np.repeat(values[..., :1], 3, 2), values[..., 1:], 1.0)
    if mode == "RGBA":
        return over(values[..., :3], values[..., 3:], 1.0)
    if mode == "P":
        return palette[array] / 255.0
    if mode == "PA":
        return over(palette[array[..., 0]] / 255.0, values[..., 1:], 1.0)
    if mode == "CMYK":
        return (1.0 - values[..., :3]) * (1.0 - values[..., 3:])
    if mode == "YCbCr":
        y, cb, cr = np.moveaxis(array.astype(np.float64), -1, 0)
        red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
        green = (y - 0.299 * red - 0.114 * blue) / 0.587
        return np.clip(np.stack([red, green, blue], -1), 0, 255) / 255.0
    return values


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_8_bits_is_what_a_viewer_shows(mode):
    palette = RNG.integers(0, 256, (256, 3))
    bands = {"1": 0, "L": 0, "LA": 2, "P": 0, "PA": 2, "RGB": 3, "YCbCr": 3}.get(mode, 4)
    array = pixels(6, 5, bands) if bands else pixels(6, 5, high=2 if mode == "1" else 256)
    image = Image.frombytes(mode, (5, 6), (np.packbits(array, axis=1) if mode == "1" else array).tobytes(), "raw", mode)
    if mode in ("P", "PA"):
        image.putpalette(palette.astype(np.uint8).tobytes())
    # each conversion of Pillow's rounds to 8 bits, and two of them follow each other at most
    np.testing.assert_allclose(seen(image), reference(mode, array, palette), atol=1.5 / 255)


@pytest.mark.parametrize(
    ("name", "color"), [("white", (255, 255, 255)), ("#204080", (32, 64, 128)), ("black", (0, 0, 0))]
)
def test_transparency_shows_the_background(name, color):
    array = pixels(4, 4, 4)
    found = seen(Image.fromarray(array), background=name)
    expected = over(array[..., :3] / 255.0, array[..., 3:] / 255.0, np.array(color) / 255.0)
    np.testing.assert_allclose(found, expected, atol=1.0 / 255)


def test_a_transparent_color_of_rgb_and_gray_files_is_the_background():
    for mode, key, other in (("RGB", (1, 2, 3), (9, 8, 7)), ("L", 5, 6)):
        image = Image.new(mode, (2, 1), other)
        image.putpixel((0, 0), key)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", transparency=key)
        found = seen(Image.open(buffer)) * 255
        assert found[0, 0].tolist() == [255, 255, 255]
        assert found[0, 1].tolist() == list(other) if mode == "RGB" else [6, 6, 6]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "1"])
def test_gray_is_one_channel_with_the_weights_of_bt601(mode):
    image = Image.fromarray(pixels(5, 4, 4)).convert(mode)
    found = seen(image, color="gray")
    assert found.shape == (5, 4, 1)
    np.testing.assert_allclose(found[..., 0], seen(image) @ BT601, atol=1.5 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_images_are_upright(kind, orientation):
    upright = pixels(4, 6, 3)
    # what a camera that was turned stores, so that the orientation turns it back
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(buffer, kind, exif=exif, lossless=True)
    np.testing.assert_array_equal(seen(Image.open(buffer)) * 255, upright)
    assert set(OPERATIONS) == set(range(2, 9))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, when it opens the file
@pytest.mark.parametrize("damage", [b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0II*\0"])
def test_damaged_exif_data_are_ignored(damage):
    image = Image.new("RGB", (6, 4), (10, 200, 30))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=damage, quality=100)
    assert seen(Image.open(buffer)).shape == (4, 6, 3)


@given(st.sampled_from([1, 8, 10, 12, 14, 16]), st.floats(0.5, 1.0))
def test_integers_that_use_half_of_their_bits_are_scaled_by_all_of_them(bits, part):
    largest = 2**bits - 1
    high = max(1, round(part * largest))
    low, found = infer_value_range(0, high, integers=True)
    assert low == 0
    assert found >= high
    assert found in {2**b - 1 for b in (1, 8, 10, 12, 14, 16)}
    assert high >= found / 2 or found == 255


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.booleans())
def test_a_range_of_values_holds_all_of_them_and_is_not_empty(a, b, integers):
    low, high = infer_value_range(min(a, b), max(a, b), integers)
    assert low <= min(a, b)
    assert high >= max(a, b)
    assert high > low


@pytest.mark.parametrize(
    ("low", "high", "integers", "expected"),
    [
        (0, 255, True, (0, 255)),
        (0, 40, True, (0, 255)),  # dark pictures of 8 bits
        (0, 1, True, (0, 1)),
        (0, 65535, True, (0, 65535)),
        (0, 4000, True, (0, 4095)),
        (30000, 34000, True, (30000, 34000)),  # 16 of 256 levels, if all bits counted
        (-1000, 3000, True, (-1000, 3000)),  # Hounsfield units
        (0.0, 1.0, False, (0, 1)),
        (0.02, 0.9, False, (0, 1)),
        (0.02, 0.3, False, (0.02, 0.3)),  # 72 of 256 levels, if 0 to 1 counted
        (0.3, 0.3, False, (0, 1)),
        (0.0, 255.0, False, (0, 255)),
        (-2.1, 2.6, False, (-2.1, 2.6)),  # normalised
        (0.0, 2.5, False, (0.0, 2.5)),
        (7.0, 7.0, False, (7.0, 8.0)),
    ],
)
def test_ranges_of_values(low, high, integers, expected):
    assert infer_value_range(low, high, integers) == expected


def test_wide_images_are_scaled_by_the_range():
    array = RNG.integers(100, 5000, (8, 7))
    for image in (
        Image.fromarray(array.astype(np.uint16)),
        Image.fromarray(array.astype(np.int32)),
        Image.fromarray(array.astype(np.float32)),
    ):
        found = seen(image, value_range=(200.0, 4200.0))
        expected = np.clip((array - 200.0) / 4000.0, 0, 1)
        np.testing.assert_allclose(found, np.repeat(expected[..., None], 3, 2), atol=0.5 / 255 + 1e-6)


def test_values_that_are_not_finite_raise_an_error():
    with pytest.raises(ValueError, match="NaN or infinite"):
        to_unit(torch.tensor([0.0, float("nan")]), (0, 1))
    with pytest.raises(ValueError, match="NaN or infinite"):
        PixelFormat(value_range=(0.0, 1.0))(Image.fromarray(np.array([[np.inf]], np.float32)))


def test_large_integers_keep_their_differences():
    values = torch.tensor([2**31 - 3, 2**31 - 2, 2**31 - 1], dtype=torch.int64)
    assert to_unit(values, (2**31 - 3, 2**31 - 1)).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("shape", "last"),
    [
        ((3, 32, 32), False),
        ((32, 32, 3), True),
        ((64, 64, 13), True),
        ((13, 64, 64), False),
        ((3, 375, 500), False),
        ((375, 500, 3), True),
        ((512, 7, 7), False),
        ((7, 7, 512), True),
        ((1, 28, 28), False),
        ((28, 28, 1), True),
        ((28, 28, 28), None),
        ((3, 32, 3), None),
        ((1, 1, 100), None),
    ],
)
def test_the_position_of_channels_is_found_where_one_reading_is_sensible(shape, last):
    assert channels_last(shape) is last


@given(st.integers(1, 8), st.integers(9, 40), st.integers(9, 40))
def test_fewer_channels_than_pixels_are_found_on_either_side(channels, height, width):
    assert channels_last((channels, height, width)) is False
    assert channels_last((height, width, channels)) is True


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (b"\x89PNG", "PIL.Image.open(io.BytesIO(value))"),
        ("cat.png", "csv:FILE"),
        ({"bytes": b"", "path": None}, "cast_column(name, datasets.Image())"),
        ([[1]], "with_format('numpy')"),
        (3, "convert it in the data set"),
    ],
)
def test_other_types_of_samples_are_refused_with_what_to_do(value, cure):
    with pytest.raises(TypeError, match=f"but got {type(value).__name__}: .*{re.escape(cure)}"):
        to_tensor(value)
