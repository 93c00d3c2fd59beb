"""The endings of image files that can be read here."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageFile, features

NO_IMAGES = frozenset({"EPS", "IPTC", "MPEG", "PDF"})  # no images, or none without another program
CODECS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # format → what Pillow may have been built without
HEIF_ENDINGS = (".heic", ".heics", ".heif", ".heifs", ".hif")


def is_readable(ending: str) -> bool:
    """Whether images of an ending are read here.

    Args:
        ending: In lower case, with the dot.
    """
    return ending in _pillow_endings() or (ending in HEIF_ENDINGS and register_heif())


def cure_of(ending: str) -> str:
    """What to do to read images of an ending that is not read here: a text in brackets, empty for other endings."""
    if ending in HEIF_ENDINGS:
        return " (install diet-lightning[heic])"
    return " (install a Pillow that reads them)" if ending in _endings(set(CODECS)) else ""


@cache
def _pillow_endings() -> frozenset[str]:
    """Endings of the image files that Pillow reads without another package."""
    Image.init()
    readable = {"MPO"}  # opened as a JPEG
    for name, (factory, _) in Image.OPEN.items():
        is_stub = isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)  # has no decoder
        if not is_stub and name not in NO_IMAGES and (name not in CODECS or features.check(CODECS[name])):
            readable.add(name)
    return frozenset(_endings(readable).difference(HEIF_ENDINGS))


def _endings(formats: set[str]) -> set[str]:
    return {ending for ending, name in Image.registered_extensions().items() if name in formats}


def register_heif() -> bool:
    """Lets Pillow read HEIC files, if the package pillow-heif is installed.

    Returns:
        Whether it reads them.
    """
    if "HEIF" not in Image.OPEN:
        try:
            import pillow_heif
        except ImportError:
            return False
        pillow_heif.register_heif_opener()
    return True
