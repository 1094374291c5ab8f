"""What a page is made of, as plain values: texts, pictures, tables, sections. They hold no markup;
`draw/html.py` renders them with the templates.

A string stands for itself wherever a block may: escaped, with a line break at each newline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from morphable.draw.colors import heat_colors
from morphable.draw.numbers import number


class Block:
    """A piece of a page, rendered by the macro of its template that has the class's name in lower
    case.
    """

    template: ClassVar[str] = "blocks.html"


FEW_COLUMNS = 5
"""A table of pictures with at most so many columns would show them too large on the whole page."""

Cell = str | Block
"""Content of a table's cell."""


@dataclass(frozen=True)
class Text(Block):
    """A paragraph, with `code` between backticks. kind: a class of the style sheet, such as lead or
    note. strong: words before the text, in bold.
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
    """Words with smaller ones below, or beside a square of a color (CSS)."""

    text: str
    note: str = ""
    color: str = ""


@dataclass(frozen=True, eq=False)
class Picture(Block):
    """pixels: (h, w, 4) uint8. description: what a person who cannot see it should know. caption:
    shown below; title: shown above.
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
        """The classes of the style sheet; a table of few pictures is not as wide as the page."""
        few = "pictures" in self.kind and len(self.header) <= FEW_COLUMNS
        return f"{self.kind} narrow" if few else self.kind


@dataclass(frozen=True)
class Columns(Block):
    """Blocks side by side, each column from top to bottom. kind: how wide the columns are."""

    columns: Sequence[Sequence[Block]]
    kind: str = "two"


@dataclass(frozen=True)
class Facts(Block):
    """Names and what is known of each."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Bullets(Block):
    """A list of sentences, with `code` between backticks."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code(Block):
    """Text as a computer writes it. summary: if given, it is hidden until this line is clicked."""

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
    """A page that needs nothing outside its file.

    title: the window's. heading: the large one. above, below: lines around it. opening: blocks
    before the first section. contents: whether links to the sections follow them.
    """

    title: str
    heading: str
    sections: Sequence[Section]
    above: str = ""
    below: str = ""
    opening: Sequence[Block] = ()
    contents: bool = True
    footer: str = ""
