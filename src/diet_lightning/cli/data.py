"""`diet data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from diet_lightning.cli.arguments import shipped_configs
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.data.images import ImageDataset
from diet_lightning.data.preview import make_preview
from diet_lightning.data.source import SourceOptions
from diet_lightning.data.sources import load_source
from diet_lightning.errors import ConfigurationError, require
from diet_lightning.figures.contact_sheet import contact_sheet, save_contact_sheet

OUTPUT = "data.png"


def data(source: str, output: str = OUTPUT, image_size: int | None = None, **options: Any) -> None:
    """Shows what a source holds, and training images as the network sees them.

    Prints the numbers of samples and classes, the sizes and values of the images and every decision of the reader, and draws
    sixteen training images, clean and augmented.

    Args:
        source: The data: digits, folder:PATH, csv:FILE, torchvision:NAME, hf:NAME or npz:FILE.
        output: File of the picture, a .png, which must not exist.
        image_size: Side of the square images that the network sees, in pixels; None keeps the data's own, and takes that
            of the configuration `folder` for images of several sizes.
        **options: Other arguments of `DIETDataModule`.
    """
    file = Path(output)
    _check_output(file, source)
    if image_size is None and _has_several_sizes(source, options):
        image_size = yaml.safe_load(shipped_configs()["folder"].read_text())["data"]["image_size"]
        rank_zero_info(
            f"The images have several sizes: {image_size} pixels are taken; set image_size for another size."
        )
    opened = DIETDataModule(source, image_size=image_size, **options)
    print("\n".join(opened.summary().lines()))
    if len(opened.input_shape) != 3:
        print("No picture is drawn, since the inputs are not images.")
        return
    shown = make_preview(opened)
    words = ["Clean (left) and augmented (right), as the network sees them", *([shown.note] if shown.note else [])]
    sheet = contact_sheet(shown.clean, shown.augmented, shown.titles, shown.names, ". ".join(words))
    save_contact_sheet(sheet, file)
    print(f"{shown.note}. Wrote {file}: look at it" if shown.note else f"Wrote {file}: look at it")


def _check_output(file: Path, source: str) -> None:
    require(file.suffix.lower() == ".png", "output", "a .png file", str(file))
    if file.exists():
        raise ConfigurationError(f"Output file '{file}' exists: move it, or choose another `output`.")
    kind, _, path = source.partition(":")
    if kind == "folder" and file.expanduser().resolve().is_relative_to(Path(path).expanduser().resolve()):
        raise ConfigurationError(
            f"Output file '{file}' would be an image of the source {source!r}: choose an `output` outside of its folder."
        )


def _has_several_sizes(source: str, options: dict[str, Any]) -> bool:
    known = {name: options[name] for name in ("root", "download", "read") if name in options}
    train = load_source(source, SourceOptions(**known)).train
    headers = train.headers.values() if isinstance(train, ImageDataset) else []
    return len({header.size for header in headers}) > 1
