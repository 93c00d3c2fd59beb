"""ReadConfig: how files, arrays and tables are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from PIL import ImageColor

from diet_lightning.errors import ConfigurationError
from diet_lightning.transforms.geometry import FitMode


@dataclass(frozen=True)
class ReadConfig:
    """How files, arrays and tables become samples. What ``"auto"`` decides is logged when a run starts.

    Attributes:
        layout: What the folders below a ``folder:`` mean. ``"classes"``: each folder right below it is a class.
            ``"flat"``: all images below it, without labels. ``"splits"``: folders such as train, val and test.
            ``"auto"``: decided from the names and from where the images lie.
        channels: Position of the channels in arrays of images: ``"first"`` for ``(C, H, W)``, ``"last"`` for
            ``(H, W, C)``; ``"auto"`` decides from the shape, and raises an error where both are possible.
        color: ``"rgb"``: images have three channels, gray ones three equal channels. ``"gray"``: one channel. ``"auto"``:
            one channel where all images that are looked at are gray, in all splits, else three. Files with more than four
            bands keep all of them.
        background: Color behind transparent pixels: a name such as ``"white"``, or ``"#rrggbb"``.
        value_range: The values that become 0 and 1 in arrays and in images of more than 8 bits; None takes it from the
            data.
        pages: Of files with several pages, such as TIFF stacks: ``"first"`` reads the first page, ``"channels"`` makes
            each page a channel.
        fit: How evaluation brings images that are not square to `image_size`: ``"crop"`` resizes the shorter side and cuts out
            the central square, ``"pad"`` resizes the longer side and adds black borders, ``"squash"`` changes the aspect
            ratio. Training takes random crops of the whole image.
        image_column: Column of the images in a table; None for one named image, or the only one.
        label_column: Column of the labels in a table; None for one named label, or the only one.
        strict: Raise an error where files would be left out.

    Raises:
        ConfigurationError: For a value outside its range.
    """

    layout: Literal["auto", "classes", "flat", "splits"] = "auto"
    channels: Literal["auto", "first", "last"] = "auto"
    color: Literal["auto", "rgb", "gray"] = "auto"
    background: str = "white"
    value_range: Sequence[float] | None = None
    pages: Literal["first", "channels"] = "first"
    fit: FitMode = "crop"
    image_column: str | None = None
    label_column: str | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        hints: dict[str, Any] = get_type_hints(type(self))
        for name in ("layout", "channels", "color", "pages", "fit"):
            value, allowed = getattr(self, name), list(get_args(hints[name]))
            if value not in allowed:
                raise ConfigurationError(f"Expected argument `read.{name}` to be one of {allowed}, but got {value!r}.")
        try:
            ImageColor.getrgb(self.background)
        except (ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"Expected argument `read.background` to be a color such as 'white' or '#ff0000', but got "
                f"{self.background!r}."
            ) from error
        if self.value_range is not None and not (
            len(self.value_range) == 2 and self.value_range[0] < self.value_range[1]
        ):
            raise ConfigurationError(
                f"Expected argument `read.value_range` to be two increasing numbers, but got {self.value_range!r}."
            )

    @property
    def pixel_range(self) -> tuple[float, float] | None:
        """`value_range` as numbers."""
        return None if self.value_range is None else (float(self.value_range[0]), float(self.value_range[1]))


READ = ReadConfig()
