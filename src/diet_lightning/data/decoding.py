"""Image files as tensors, with all their bands and bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor, UnidentifiedImageError
from torch import Tensor

from diet_lightning.transforms.convert import PixelFormat, is_wide, native, orientation, to_tensor

Pages = Literal["first", "channels"]
ALPHA = (1, 2)  # TIFF's extra samples that are transparency
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # TIFF's photometric interpretations that are read here
UNSIGNED, SIGNED = 1, 2  # TIFF's formats of integers
NO_LOG = logging.NullHandler()
NEEDS_EXTRA = "its bands, bits or pages need more than Pillow: pip install 'diet-lightning[images]'"
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations of images whose width and height are exchanged
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded.

    Attributes:
        size: Width and height, as the image is looked at.
        mode: Pillow's mode, or the dtype and the number of bands of an image that Pillow does not read in full.
        pages: Number of pages or frames.
        wide: Whether it has more than 8 bits per channel.
        transparent: Whether it may have transparent pixels.
    """

    size: tuple[int, int]
    mode: str
    pages: int = 1
    wide: bool = False
    transparent: bool = False

    @property
    def is_gray(self) -> bool:
        """Whether it has one channel, also after it is composited on a background."""
        return (self.mode in ("1", "L") or is_wide(self.mode)) and not self.transparent


def read_values(
    image: Any, pixels: PixelFormat, pages: Pages = "first", reduction: Callable[[tuple[int, int]], float] | None = None
) -> Tensor:
    """An image with its own values, upright and opaque.

    Args:
        image: A path, an open file, a PIL image, an array or a tensor.
        pixels: How images become tensors.
        pages: Read the first page of a file, or all as channels.
        reduction: Takes height and width of an image file and says by how much it may be reduced while it is decoded; JPEG
            files are then decoded at the smallest scale (1, 1/2, 1/4 or 1/8) that is not smaller.

    Returns:
        ``(C, H, W)``; uint8, or another dtype for more than 8 bits, for `PixelFormat.to_stored`.

    Raises:
        OSError: If the file cannot be read; decoders also raise other exceptions.
        ValueError: If it can be read only in part.
    """
    if not isinstance(image, str | Path | BinaryIO) and not hasattr(image, "read"):
        return pixels.to_values(image) if isinstance(image, Image.Image) else to_tensor(image)
    try:
        opened = _open(image)
    except UnidentifiedImageError:
        if not _is_tiff(image):
            raise
        return _tiff_values(image, pixels, pages)
    with opened:
        if opened.format == "TIFF" and (_loses(opened) or (pages == "channels" and _pages(opened) > 1)):
            return _tiff_values(image, pixels, pages)
        if pages == "channels" and _pages(opened) > 1:
            return _frames(opened, pixels)
        if _loses(opened):
            return _deep_values(opened, image, pixels)
        if reduction is not None:
            scale = max(1, int(reduction(_upright_size(opened))))
            opened.draft(None, (max(1, opened.width // scale), max(1, opened.height // scale)))
        return pixels.to_values(opened)


def read_header(image: Any) -> Header:
    """What is known of an image without decoding it; of PIL images, arrays and tensors likewise.

    Args:
        image: As for `read_values`.

    Raises:
        OSError: If the file cannot be read; decoders also raise other exceptions.
    """
    if isinstance(image, Image.Image):
        return _header(image)
    if not isinstance(image, str | Path) and not hasattr(image, "read"):
        values = to_tensor(image)
        return Header((values.shape[-1], values.shape[-2]), str(values.dtype).removeprefix("torch."))
    try:
        with _open(image) as opened:
            if opened.format != "TIFF" or not _loses(opened):
                return _header(opened)
    except UnidentifiedImageError:
        if not _is_tiff(image):
            raise
    with _open_tiff(image) as file:
        page = file.pages[0]
        mode = f"{page.dtype}, {page.samplesperpixel} bands"
        return Header(
            (page.imagewidth, page.imagelength), mode, len(file.pages), page.dtype != np.uint8, _has_alpha(page)
        )


def _open(file: Any) -> Image.Image:
    """A file that Pillow reads; its log of TIFF files that another reader takes is not printed where nobody set up logs."""
    logging.getLogger("PIL").addHandler(NO_LOG)  # added once
    return Image.open(file)


def _header(image: Image.Image) -> Header:
    wide = is_wide(image.mode) or _loses(image)  # first, since EXIF data may follow pixels, which are decoded for them
    height, width = _upright_size(image)
    return Header((width, height), image.mode, _pages(image), wide, image.has_transparency_data)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an image as it is looked at."""
    return image.size if orientation(image) in SIDEWAYS else (image.height, image.width)


def _pages(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _loses(image: Image.Image) -> bool:
    """Whether Pillow would read fewer bits or bands than the file has, or other values."""
    if not (tile := getattr(image, "tile", None)):
        return False
    args = tile[0][3]
    rawmode = args if isinstance(args, str) else args[0] if args else ""
    deep = ";16" in str(rawmode) and not is_wide(image.mode)
    tags = getattr(image, "tag_v2", {})
    bits, kind = (tags.get(tag, (1,))[0] for tag in (258, 339))  # BitsPerSample, SampleFormat
    white_is_zero = tags.get(262) == WHITE_IS_ZERO and is_wide(image.mode)  # PhotometricInterpretation
    wraps = (bits, kind) in ((8, SIGNED), (32, UNSIGNED))
    bands = int(tags.get(277, 1))  # SamplesPerPixel
    return deep or white_is_zero or wraps or bands > len(image.getbands())


def _frames(image: Image.Image, pixels: PixelFormat) -> Tensor:
    """All frames as channels: one of each frame if all of the file are gray, else three."""
    frames = []
    for page in range(_pages(image)):
        image.seek(page)
        frames.append(pixels.to_values(image.copy()))
    if all(bool((frame == frame[:1]).all()) for frame in frames):
        frames = [frame[:1] for frame in frames]
    return torch.cat(frames)


def _deep_values(opened: Image.Image, file: Any, pixels: PixelFormat) -> Tensor:
    """A PNG of 16 bits per channel and several channels, of which Pillow keeps 8 bits."""
    if opened.format != "PNG":
        raise ValueError(f"a {opened.format} file of 16 bits per channel; convert it to PNG or TIFF")
    data = file.getvalue() if hasattr(file, "getvalue") else Path(file).read_bytes()
    try:
        from imagecodecs import png_decode
    except ImportError as error:
        raise ValueError(NEEDS_EXTRA) from error
    values = native(png_decode(data).transpose(2, 0, 1))
    return _opaque(values, pixels, len(values) in (2, 4))


def _opaque(values: NDArray[Any], pixels: PixelFormat, alpha: bool) -> Tensor:
    """The bands ``(C, H, W)``, the last of them composited on the background if it is transparency."""
    dtype = values.dtype
    if alpha:
        largest = 65535 if values.max() > 255 or values.dtype != np.uint8 else 255
        low, high = pixels.value_range or (0, largest)
        color = np.array(ImageColor.getrgb(pixels.background)[:3]) / 255.0
        color = color.mean(keepdims=True) if len(values) == 2 else color
        opacity = values[-1:] / largest
        values = values[:-1] * opacity + (low + color[:, None, None] * (high - low)) * (1.0 - opacity)
        values = values.astype(np.float32) if dtype.kind == "f" else values.round().astype(np.int32)
    return torch.from_numpy(values)


def _is_tiff(file: Any) -> bool:
    if hasattr(file, "read"):
        file.seek(0)
        start = file.read(4)
        file.seek(0)
    else:
        with Path(file).open("rb") as stream:
            start = stream.read(4)
    return start in TIFF_MARKS


def _open_tiff(file: Any) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(NEEDS_EXTRA) from error
    if hasattr(file, "seek"):
        file.seek(0)
    return tifffile.TiffFile(file)


def _has_alpha(page: Any) -> bool:
    return len(page.extrasamples) == 1 and int(page.extrasamples[0]) in ALPHA and page.samplesperpixel in (2, 4)


def _tiff_values(file: Any, pixels: PixelFormat, pages: Pages) -> Tensor:
    with _open_tiff(file) as opened:
        selected: Sequence[Any] = opened.pages[:1] if pages == "first" else list(opened.pages)
        return torch.cat([_opaque(_bands(page), pixels, _has_alpha(page)) for page in selected])


def _bands(page: Any) -> NDArray[Any]:
    """The bands of a page, ``(C, H, W)``."""
    orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1
    photometric = int(page.photometric)
    inverted = photometric == WHITE_IS_ZERO and page.samplesperpixel == 1 and page.dtype.kind == "u"
    known = inverted or photometric in (BLACK_IS_ZERO, RGB)
    if not known or int(orientation) != 1 or page.dtype.kind not in "uifb":
        raise ValueError(
            f"a TIFF with photometric interpretation {photometric}, orientation {int(orientation)} and values of "
            f"{page.dtype} is not supported with this number of bands, bits or pages; convert it to bands of black-is-zero"
        )
    values = page.asarray()
    if inverted:
        values = values.dtype.type(2**page.bitspersample - 1) - values
    if page.axes == "YXS":
        values = values.transpose(2, 0, 1)
    elif page.axes == "YX":
        values = values[None]
    elif page.axes != "SYX":
        raise ValueError(f"a TIFF page with the axes {page.axes} is not supported; write one page per plane")
    return native(values.astype(np.uint8) * 255 if values.dtype == np.bool_ else values)
