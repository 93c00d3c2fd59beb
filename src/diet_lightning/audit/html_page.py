"""The page of an audit: one HTML file with embedded pictures, which needs no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 96  # pixels; larger pictures are made smaller
TINY = 24  # pixels; up to here every pixel counts, and a lossless file is hardly larger

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
nav a { margin-right: 1rem; }
.cards { display: flex; flex-wrap: wrap; gap: .6rem; }
.group { display: inline-flex; margin-right: .6rem; border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; margin-bottom: .6rem; }
figure { margin: 0; width: 112px; font-size: 11px; overflow-wrap: anywhere; }
figure img { width: 96px; height: 96px; object-fit: contain; background: var(--soft); image-rendering: pixelated; }
figure b { display: block; }
th { text-align: left; vertical-align: top; padding-right: 1rem; }
.none { font-style: italic; opacity: .8; }
"""


@dataclass(frozen=True)
class Card:
    """One sample on the page.

    Attributes:
        picture: ``(H, W)`` or ``(H, W, 3)``, uint8; None where the sample is not an image.
        title: Its index, in bold.
        lines: Further lines of text below the title.
    """

    picture: NDArray[np.uint8] | None
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: The heading.
        words: What it shows, and how to read it.
        groups: Cards that belong together; a section of single samples has one group.
        rows: Names and texts of a table, in place of groups.
    """

    name: str
    words: str
    groups: Sequence[Sequence[Card]] = ()
    rows: Sequence[tuple[str, str]] = ()


def page(title: str, words: Sequence[str], sections: Sequence[Section]) -> str:
    """Makes the page.

    Args:
        title: Heading.
        words: Paragraphs below the heading.
        sections: Sections of the page.

    Returns:
        HTML that needs no other file.
    """
    links = "".join(f'<a href="#{number}">{escape(section.name)}</a>' for number, section in enumerate(sections))
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>',
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(each)}</p>" for each in words),
        f"<nav>{links}</nav>",
    ]
    for number, section in enumerate(sections):
        parts.append(f'<h2 id="{number}">{escape(section.name)}</h2><p>{escape(section.words)}</p>')
        framed = len(section.groups) > 1
        for group in section.groups:
            parts.append(f'<div class="cards{" group" if framed else ""}">{"".join(map(_figure, group))}</div>')
        if section.rows:
            rows = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in section.rows)
            parts.append(f"<table>{''.join(rows)}</table>")
        elif not any(section.groups):
            parts.append('<p class="none">None.</p>')
    return "\n".join([*parts, "</body></html>\n"])


def _figure(card: Card) -> str:
    image = (
        ""
        if card.picture is None
        else f'<img loading="lazy" alt="{escape(card.title)}" src="{_data_url(card.picture)}">'
    )
    return f"<figure>{image}<b>{escape(card.title)}</b>{'<br>'.join(map(escape, card.lines))}</figure>"


def _data_url(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    tiny = max(image.size) <= TINY
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "PNG" if tiny else "JPEG", quality=80)
    return f"data:image/{'png' if tiny else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
