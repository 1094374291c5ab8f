"""The content of a page as plain values: texts, pictures, tables and sections. They hold no markup;
`draw/html.py` renders them with the templates.

A string may take the place of a block. It is escaped and gets a line break at each newline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from morphable.draw.colors import heat_colors
from morphable.draw.numbers import number


class Block:
    """A piece of a page. The macro of its template with the class's name in lower case
    renders it.
    """

    template: ClassVar[str] = "blocks.html"


FEW_COLUMNS = 5
"""Tables of pictures with at most this many columns are narrower than the page, since they would
show the pictures too large.
"""

Cell = str | Block
"""The content of a cell of a table."""


@dataclass(frozen=True)
class Text(Block):
    """A paragraph, in which words between backticks are code.

    kind: a class of the style sheet, such as lead or note. strong: words before the text, in bold.
    """

    text: str
    kind: str = ""
    strong: str = ""


@dataclass(frozen=True)
class Heading(Block):
    """A title within a section."""

    text: str


@dataclass(frozen=True)
class BigNumber(Block):
    """The one number that a page is about, and its unit."""

    number: str
    unit: str


@dataclass(frozen=True)
class Bold(Block):
    """Words in bold."""

    text: str


@dataclass(frozen=True)
class Labeled(Block):
    """Words with smaller ones below (note), or next to a square of a color (CSS)."""

    text: str
    note: str = ""
    color: str = ""


@dataclass(frozen=True, eq=False)
class Picture(Block):
    """A picture, pixels (h, w, 4) uint8.

    description: text for those who cannot see it. caption: shown below; title: shown above.
    """

    pixels: np.ndarray
    description: str
    caption: str = ""
    title: str = ""


@dataclass(frozen=True)
class Sheet(Block):
    """Pictures in a grid that fills the width."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Table(Block):
    """A table whose first column holds the headings of its rows. kind: classes of the style sheet,
    such as "pictures" for cells that are pictures.
    """

    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    kind: str = ""

    @property
    def classes(self) -> str:
        """The classes of the style sheet, with `narrow` for a table of few pictures per row."""
        narrow = "pictures" in self.kind and len(self.header) <= FEW_COLUMNS
        return f"{self.kind} narrow" if narrow else self.kind


@dataclass(frozen=True)
class Columns(Block):
    """Blocks side by side, each column from top to bottom. kind: how wide the columns are."""

    columns: Sequence[Sequence[Block]]
    kind: str = "two"


@dataclass(frozen=True)
class Facts(Block):
    """A list of names with a text for each."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Bullets(Block):
    """A list of sentences, in which words between backticks are code."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code(Block):
    """Text in a fixed-width font. summary: if given, the text is hidden until this line is
    clicked.
    """

    text: str
    summary: str = ""


@dataclass(frozen=True)
class ColorBar(Block):
    """The scale of `heat_colors`, from 0 to `limit_mm`; larger values have the last color."""

    limit_mm: float
    label: str

    @property
    def stops(self) -> list[tuple[float, list[int]]]:
        """Places 0..1 along the bar and their colors, 0..255."""
        shares = np.linspace(0, 1, 17)
        colors = np.round(255 * heat_colors(shares * self.limit_mm, self.limit_mm)).astype(int)
        return list(zip(shares.tolist(), colors.tolist(), strict=True))

    @property
    def half(self) -> str:
        """The number in the middle of the bar."""
        return number(self.limit_mm / 2, 2)

    @property
    def end(self) -> str:
        """The number at the end of the bar."""
        return number(self.limit_mm, 2)


@dataclass(frozen=True)
class Section:
    """One titled part of a page."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page that loads nothing from outside its file.

    title: the title of the window. heading: the large title on the page. above, below: the lines
    around it. opening: blocks before the first section. contents: whether links to the sections
    follow these blocks.
    """

    title: str
    heading: str
    sections: Sequence[Section]
    above: str = ""
    below: str = ""
    opening: Sequence[Block] = ()
    contents: bool = True
    footer: str = ""
