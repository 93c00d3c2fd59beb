"""Files of every format and mode that Pillow writes here, as the network sees them, compared with what was written."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diet_lightning import DIETDataModule, ReadConfig
from diet_lightning.data.decoding import read_header, read_values
from diet_lightning.errors import DataError
from diet_lightning.transforms.convert import PixelFormat

RNG = np.random.default_rng(0)
# format → modes it keeps, and the error of its compression on images of one color
LOSSLESS = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "TIFF": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F"],
    "BMP": ["1", "L", "P", "RGB"],  # readers take the fourth byte of a pixel for padding
    "TGA": ["1", "L", "LA", "P", "RGB", "RGBA"],
    "GIF": ["L", "P"],
    "PPM": ["L", "RGB"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA", "I;16"],
}
LOSSY = {"JPEG": ["L", "RGB", "CMYK", "YCbCr"], "WEBP": ["RGB", "RGBA"], "AVIF": ["L", "RGB", "RGBA"]}
WIDE = {"I;16": 65535, "I": 3_000_000, "F": 1.0}
SUFFIX = {"JPEG2000": "jp2", "JPEG": "jpg", "PPM": "ppm"}


def make(mode, color, size):
    """An image of one color, given as 0 … 1 in RGB and opacity, and what a viewer shows on white, as float64."""
    *rgb, alpha = color
    shown = np.array(rgb)
    bytes_of = [round(255 * value) for value in rgb]
    if mode in WIDE:
        value = rgb[0] * WIDE[mode]
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        array = np.full(size[::-1], value if mode == "F" else round(value), dtype)
        return Image.fromarray(array), np.full(3, rgb[0])
    opaque = np.array(bytes_of) / 255
    gray = bytes_of[0] / 255
    opacity = round(255 * alpha) / 255
    if mode == "RGBA":
        return Image.new(mode, size, (*bytes_of, round(255 * alpha))), opaque * opacity + 1 - opacity
    if mode == "LA":
        return Image.new("LA", size, (bytes_of[0], round(255 * alpha))), np.full(3, gray * opacity + 1 - opacity)
    if mode == "PA":
        image = Image.frombytes(mode, size, bytes([1, round(255 * alpha)]) * (size[0] * size[1]))
        image.putpalette([0, 0, 0, *bytes_of])
        return image, opaque * opacity + 1 - opacity
    if mode == "L":
        return Image.new(mode, size, bytes_of[0]), np.full(3, gray)
    if mode == "1":
        return Image.new(mode, size, int(gray > 0.5)), np.full(3, float(gray > 0.5))
    if mode == "P":
        image = Image.new(mode, size, 1)
        image.putpalette([0, 0, 0, *bytes_of])
        return image, opaque
    if mode == "CMYK":
        inks = [255 - value for value in bytes_of]
        return Image.new(mode, size, (*inks, 0)), opaque
    assert mode in ("RGB", "YCbCr"), shown
    return Image.new("RGB", size, tuple(bytes_of)).convert(mode), opaque


def seen(path, value_range=None, **options):
    values = read_values(path, PixelFormat(value_range=value_range, **options))
    stored = PixelFormat(value_range=value_range, **options).to_stored(values)
    return stored.permute(1, 2, 0).double().numpy() / 255


colors = st.tuples(*[st.floats(0, 1)] * 4)


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for group in (LOSSLESS, LOSSY) for kind, modes in group.items() for mode in modes]
)
@settings(max_examples=6)
@given(color=colors)
def test_what_the_network_sees_is_what_was_written(tmp_path_factory, kind, mode, color):
    image, shown = make(mode, color, (16, 8))
    path = tmp_path_factory.mktemp("images") / f"a.{SUFFIX.get(kind, kind.lower())}"
    image.save(path, kind, **({"quality": 100} if kind in LOSSY else {}))
    value_range = (0, WIDE[mode]) if mode in WIDE else None
    found = seen(path, value_range)
    # one or two roundings to 8 bits; of lossy formats also color spaces of 8 bits and their quantisation
    np.testing.assert_allclose(found, np.broadcast_to(shown, (8, 16, 3)), atol=(5 if kind in LOSSY else 1.5) / 255)
    header = read_header(path)
    assert header.size == (16, 8)
    assert header.wide == (mode in WIDE)


def png16(path, array):
    """A PNG of 16 bits of 1 to 4 channels, which Pillow does not write."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_color_images_of_16_bits_keep_the_low_bits(tmp_path, channels, suffix):
    array = RNG.integers(0, 1024, (6, 5, channels), dtype=np.uint16)  # 10 bits: the high byte has 4 levels
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        png16(path, array)
    else:
        tifffile.imwrite(path, array.squeeze(), photometric="rgb" if channels == 3 else "minisblack")
    found = seen(path, (0, 1023))
    np.testing.assert_allclose(found, np.broadcast_to(array / 1023, (6, 5, 3)), atol=0.5 / 255 + 1e-6)
    assert read_header(path).wide


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparency_of_16_bits_is_composited(tmp_path, channels, suffix):
    array = RNG.integers(0, 65536, (6, 5, channels), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        png16(path, array)
    else:
        options = {"photometric": "rgb" if channels == 4 else "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(path, array, extrasamples=["unassalpha"], **options)
    values = array.astype(np.float64) / 65535
    expected = values[..., :-1] * values[..., -1:] + 1 - values[..., -1:]
    np.testing.assert_allclose(seen(path), np.broadcast_to(expected, (6, 5, 3)), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("bands", [2, 4, 5, 13])
@pytest.mark.parametrize(
    ("planar", "dtype"), [("contig", np.uint8), ("separate", np.uint8), ("contig", np.uint16), ("separate", np.float32)]
)
def test_all_bands_of_a_tiff_are_kept(tmp_path, bands, planar, dtype):
    array = RNG.integers(0, 256, (bands, 7, 6)).astype(dtype)
    path = tmp_path / "a.tif"
    stored = array.transpose(1, 2, 0) if planar == "contig" else array
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar)
    values = read_values(path, PixelFormat())
    np.testing.assert_array_equal(values.numpy(), array)
    header = read_header(path)
    assert (header.size, header.wide) == ((6, 7), dtype != np.uint8)


def test_pages_are_the_first_one_or_channels(tmp_path):
    pages = RNG.integers(0, 256, (3, 6, 5), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    frames = [Image.fromarray(page) for page in pages]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for name in ("stack.tif", "a.gif"):
        path = tmp_path / name
        np.testing.assert_allclose(seen(path)[..., 0] * 255, pages[0], atol=1e-9)
        every = read_values(path, PixelFormat(), "channels").numpy()
        np.testing.assert_allclose(every, pages, atol=1)  # a GIF's palette may hold neighbours
        assert read_header(path).pages == 3


def test_frames_in_color_have_three_channels_each(tmp_path):
    for name in ("a.gif", "a.png"):
        frames = [Image.new("RGB", (5, 6), color) for color in ("#ff0000", "#0000ff")]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        every = read_values(tmp_path / name, PixelFormat(), "channels")
        assert every[:, 0, 0].tolist() == [255, 0, 0, 0, 0, 255]
        gray = read_values(tmp_path / name, PixelFormat("gray"), "channels")
        assert gray[:, 0, 0].tolist() == [76, 29]  # luminance of ITU-R 601


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_a_tiff_of_any_dtype_keeps_its_values(tmp_path, dtype, bands, byteorder):
    dtype = np.dtype(dtype)
    shape = (6, 5, 3)[: 2 + (bands == 3)]
    if dtype.kind == "f":
        array = (RNG.random(shape) * 3 - 1).astype(dtype)
    else:
        array = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb" if bands == 3 else "minisblack", byteorder=byteorder)
    values = read_values(path, PixelFormat()).permute(1, 2, 0).double().numpy()
    np.testing.assert_array_equal(values, np.broadcast_to(array.reshape(6, 5, bands).astype(np.float64), values.shape))
    assert read_header(path).wide == (dtype != np.uint8)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(("dtype", "largest"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1)])
def test_a_tiff_whose_zero_is_white_is_no_negative(tmp_path, dtype, largest, byteorder):
    array = RNG.integers(0, largest, (6, 5), dtype, endpoint=True)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="miniswhite", byteorder=byteorder)
    np.testing.assert_array_equal(read_values(path, PixelFormat())[0].numpy(), largest - array.astype(np.int64))
    tifffile.imwrite(path, array[None].repeat(2, 0), photometric="miniswhite", byteorder=byteorder)
    stack = read_values(path, PixelFormat(), "channels").numpy()
    np.testing.assert_array_equal(stack, [largest - array.astype(np.int64)] * 2)


def test_nothing_is_printed_on_bands_that_pillow_does_not_read(tmp_path):
    array = np.zeros((8, 8, 13), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig")
    code = f"""
from diet_lightning.data.decoding import read_header, read_values
from diet_lightning.transforms.convert import PixelFormat
print(read_header({str(tmp_path / "a.tif")!r}).mode, len(read_values({str(tmp_path / "a.tif")!r}, PixelFormat())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("uint8, 13 bands 13\n", "")


@pytest.mark.parametrize("mode", ["int16", "float32"])
def test_a_tiff_whose_zero_is_white_and_that_has_no_largest_value_raises_an_error(tmp_path, mode):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6), mode), photometric="miniswhite")
    with pytest.raises(ValueError, match="photometric interpretation 0"):
        read_values(tmp_path / "a.tif", PixelFormat())


def test_a_tiff_that_cannot_be_read_as_it_is_meant_raises_an_error(tmp_path):
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, np.zeros((4, 5, 6), np.uint16), photometric="miniswhite", planarconfig="contig")
    with pytest.raises(ValueError, match="photometric interpretation 0"):
        read_values(path, PixelFormat())


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (801, 600)])
def test_large_jpegs_are_decoded_at_a_smaller_scale(tmp_path, size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(x / (30 + 9 * c) + c) * np.cos(y / (40 - 7 * c)) for c in range(3)]
    array = np.stack(waves, -1).astype(np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(array).save(path, quality=95)
    small = read_values(path, PixelFormat(), reduction=lambda size: min(size) / 64)
    scale = max(each for each in (1, 2, 4, 8) if min(size) / each >= 64)
    assert list(small.shape[1:]) == [-(-each // scale) for each in size]
    full = read_values(path, PixelFormat())
    assert full.shape == (3, *size)
    # what the smaller scale changes, compared with the means of blocks of pixels
    height, width = (each // scale * scale for each in size)
    blocks = full[:, :height, :width].double().unflatten(2, (-1, scale)).unflatten(1, (-1, scale)).mean((2, 4))
    difference = (small[:, : height // scale, : width // scale].double() - blocks).abs()
    assert difference.mean() < 1.0
    assert difference.max() <= 6


def folder_of(tmp_path, arrays):
    for n, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{n}.png")
    return f"folder:{tmp_path}"


@pytest.mark.parametrize(("bits", "largest"), [(10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_images_of_more_than_8_bits_use_all_levels_and_it_is_told(tmp_path, bits, largest):
    arrays = RNG.integers(0, 2**bits, (5, 64, 64)).astype(np.uint16)
    data = DIETDataModule(folder_of(tmp_path, arrays), image_size=64, holdout=0.0)
    stored = data.raw_samples("train", range(5)).input.double().numpy()[:, 0] / 255
    np.testing.assert_allclose(stored, arrays / largest, atol=0.5 / 255 + 1e-6)
    assert any(f"{largest} becomes 1" in note and "read.value_range" in note for note in data.notes)


@pytest.mark.parametrize("top", [0.01, 0.3, 0.7, 1.0])
def test_floats_in_a_part_of_0_to_1_use_all_levels_and_it_is_told(tmp_path, top):
    arrays = RNG.random((5, 64, 64), dtype=np.float32) * np.float32(top)
    for n, array in enumerate(arrays):
        tifffile.imwrite(tmp_path / f"{n}.tif", array)
    data = DIETDataModule(f"folder:{tmp_path}", image_size=64, holdout=0.0)
    stored = data.raw_samples("train", range(5)).input.double().numpy()[:, 0] / 255
    low, high = (arrays.min(), arrays.max()) if top < 0.5 else (0.0, 1.0)
    np.testing.assert_allclose(stored, (arrays - low) / (high - low), atol=0.5 / 255 + 1e-6)
    assert any("becomes 0 and" in note for note in data.notes) == (top < 0.5)


def test_the_range_is_that_of_training_and_stays_in_the_checkpoint(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    folder_of(tmp_path / "train", RNG.integers(30000, 34001, (4, 8, 8)).astype(np.uint16))
    folder_of(tmp_path / "val", RNG.integers(31000, 32001, (4, 8, 8)).astype(np.uint16))
    data = DIETDataModule(f"folder:{tmp_path}", image_size=8)
    low, high = data.state_dict()["value_range"]
    assert 30000 <= low < 30100 < 33900 < high <= 34000
    val = data.raw_samples("val", range(4)).input
    assert 50 < int(val.min()) < int(val.max()) < 140  # a quarter of the range of training
    other = DIETDataModule(f"folder:{tmp_path / 'val'}", image_size=8, holdout=0.0)
    assert other.state_dict()["value_range"] != [low, high]
    other.load_state_dict(data.state_dict())
    assert (other.raw_samples("train", range(4)).input == val).all()
    chosen = DIETDataModule(f"folder:{tmp_path}", image_size=8, read=ReadConfig(value_range=[0, 65535]))
    assert int(chosen.raw_samples("train", range(4)).input.min()) >= 30000 / 65535 * 255 - 1


def test_an_image_of_more_bits_than_those_looked_at_raises_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("diet_lightning.data.image_files.ImageFileDataset.num_headers", 2)
    name = folder_of(tmp_path, RNG.integers(0, 256, (3, 8, 8)).astype(np.uint8))
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1\.png.*more than 8 bits, unlike .*`read.value_range`"):
        DIETDataModule(name, image_size=8, holdout=0.0).raw_samples("train", [1])


def test_what_is_decided_on_pixels_is_told_and_can_be_chosen(tmp_path):
    for n in range(3):
        frames = [Image.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(2)]
        frames[0].save(tmp_path / f"{n}.tif", save_all=True, append_images=frames[1:])
    data = DIETDataModule(f"folder:{tmp_path}", image_size=8, holdout=0.0)
    assert data.input_shape == (1, 8, 8)
    told = " ".join(data.notes)
    assert "3 of the 3 images looked at have several pages" in told
    assert "All 3 images looked at are gray and have one channel; set read.color to rgb for three equal ones." in told
    stacked = DIETDataModule(f"folder:{tmp_path}", image_size=8, holdout=0.0, read=ReadConfig(pages="channels"))
    stacked.setup()
    (note,) = (note for note in stacked.notes if "3 of the 3 images" in note)
    assert "each of which becomes one channel if it is gray" in note
    assert not any("one channel; set" in note or "three equal channels" in note for note in stacked.notes)
    for options, channels in (({"color": "gray"}, 1), ({"color": "rgb"}, 3), ({"pages": "channels"}, 2)):
        assert DIETDataModule(f"folder:{tmp_path}", image_size=8, read=ReadConfig(**options)).input_shape == (
            channels,
            8,
            8,
        )


GRAY_AND_OTHERS = [("L", 1), ("1", 1), ("RGB", 3), ("LA", 3), ("P", 3)]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("mode", "channels"), GRAY_AND_OTHERS)
def test_one_image_that_is_not_gray_in_any_split_gives_all_three_channels(tmp_path, mode, channels, split):
    for n, each in enumerate(["train"] * 3 + ["test"] * 3):
        (tmp_path / each).mkdir(exist_ok=True)
        Image.new("L", (8, 8), 20 * n + 9).save(tmp_path / f"{each}/{n}.png")
    color = {"RGB": (90, 9, 9), "LA": (90, 30)}.get(mode, 1)
    Image.new(mode, (8, 8), color).save(tmp_path / f"{split}/x.png")
    data = DIETDataModule(f"folder:{tmp_path}", image_size=8)
    assert data.input_shape == (channels, 8, 8)
    assert any("are gray and have one channel" in note for note in data.notes) == (channels == 1)
    seen = data.raw_samples("train", [1]).input[0]
    assert seen.shape == (channels, 8, 8)
    assert (seen == 29).all()


def test_a_color_image_after_the_gray_ones_that_were_looked_at_raises_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("diet_lightning.data.image_files.ImageFileDataset.num_headers", 2)
    for n, mode in enumerate(["L", "RGB", "L"]):
        Image.new(mode, (8, 8), 50).save(tmp_path / f"{n}.png")
    for options in ({}, {"drop_unreadable": True}):  # it is not unreadable
        data = DIETDataModule(f"folder:{tmp_path}", image_size=8, holdout=0.0, in_memory=False, **options)
        with pytest.raises(
            DataError, match=r"Image 1 \(.*1\.png\) has shape \(3, 8, 8\), .* set `read.color` to rgb or gray"
        ):
            data.raw_samples("train", [1])


@pytest.mark.parametrize("trained", ["L", "RGB"])
def test_other_data_get_the_channels_of_the_checkpoint(tmp_path, trained):
    for mode in ("L", "RGB"):
        for n in range(3):
            (tmp_path / mode).mkdir(exist_ok=True)
            Image.new("L", (8, 8), 50 * n + 9).convert(mode).save(tmp_path / f"{mode}/{n}.png")
    data = {mode: DIETDataModule(f"folder:{tmp_path / mode}", image_size=8) for mode in ("L", "RGB")}
    other = data["RGB" if trained == "L" else "L"]
    other.load_state_dict(data[trained].state_dict())
    data[trained].load_state_dict(data[trained].state_dict())
    assert other.input_shape == data[trained].input_shape == (1 if trained == "L" else 3, 8, 8)
    assert (other.raw_samples("train", [2]).input == data[trained].raw_samples("train", [2]).input).all()


def test_integers_beside_floats_are_told(tmp_path):
    Image.fromarray(RNG.integers(0, 4096, (8, 8)).astype(np.uint16)).save(tmp_path / "0.tif")
    Image.fromarray(RNG.random((8, 8), dtype=np.float32)).save(tmp_path / "1.tif")
    data = DIETDataModule(f"folder:{tmp_path}", image_size=8)
    data.setup()
    assert any("hold integers and others floats" in note for note in data.notes)
    (tmp_path / "1.tif").unlink()
    Image.fromarray(RNG.integers(0, 4096, (8, 8)).astype(np.int32)).save(tmp_path / "1.tif")
    data = DIETDataModule(f"folder:{tmp_path}", image_size=8)
    data.setup()
    assert not any("hold integers and others floats" in note for note in data.notes)


def test_a_picture_of_100_megapixels_is_read_without_copies_of_it(tmp_path):
    path = tmp_path / "large.jpg"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.effect_noise((1200, 900), 50).resize((12000, 9000)).save(path, quality=50)
        values = read_values(path, PixelFormat(), reduction=lambda size: min(size) / 224)
    assert values.shape == (3, 1125, 1500)


def test_open_files_are_read_as_paths_are(tmp_path):
    array = RNG.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    path = png16(tmp_path / "a.png", array)
    tifffile.imwrite(tmp_path / "a.tif", array.repeat(2, 2), photometric="minisblack", planarconfig="contig")
    for file in (path, tmp_path / "a.tif"):
        data = io.BytesIO(file.read_bytes())
        assert (read_values(data, PixelFormat()) == read_values(file, PixelFormat())).all()
        assert read_header(io.BytesIO(file.read_bytes())) == read_header(file)
