"""Pages: every block as HTML, everything escaped, nothing fetched from elsewhere, and a page that
shows what it was given.
"""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

from morphable.draw import blocks, charts, turntable
from morphable.draw.axes import Axis
from morphable.draw.blocks import (
    BigNumber,
    Block,
    Bold,
    Bullets,
    Code,
    ColorBar,
    Columns,
    Facts,
    Heading,
    Labeled,
    Page,
    Picture,
    Section,
    Sheet,
    Table,
    Text,
)
from morphable.draw.camera import Camera
from morphable.draw.charts import Bar, Bars, Chart, Cloud, Scatter, Series
from morphable.draw.html import render_block, render_page
from morphable.draw.turntable import Slider, Turntable
from parsed_page import ParsedPage

EVIL = '<script>"&'
FRONT = Camera(np.eye(3), np.zeros(3), np.array([10.0, 10.0]))
CORNERS = np.array([[0, 1, 1]])
PIXELS = np.full((3, 5, 4), 255, np.uint8)


def picture(text: str) -> Picture:
    return Picture(PIXELS, text, text, text)


def every_block(text: str) -> list[Block]:
    """One of each class, holding the text wherever it may hold one."""
    points = np.array([[0.0, 0.0, 1.0], [1.0, 2.0, 0.0]])
    series = [Series(text, [1, 2], [1, 2]), Series(text, [1], [2], "mark", 1, np.array([[1, 3]]))]
    return [
        Text(text, strong=text),
        Heading(text),
        BigNumber(text, text),
        Bold(text),
        Labeled(text, text),
        picture(text),
        Sheet([picture(text)]),
        Table([text, text], [[text, Bold(text)]]),
        Columns([[Heading(text)], [Text(text)]]),
        Facts({text: text}),
        Bullets([text]),
        Code(text, text),
        ColorBar(2.0, text),
        Chart(series, Axis(text), Axis(text), text),
        Bars([Bar(text, 0, 2.0, text, (1.0, 3.0))], text),
        Scatter(points[:, :2], np.array([0, -1]), [text], text),
        Cloud(points, FRONT, 20, text),
        Turntable.of_ends(
            points,
            points[None, None] + [[[1.0]], [[2.0]]],
            CORNERS,
            [Slider(text, -2.0, 2.0, text, text)],
            FRONT.rotation,
            text,
        ),
    ]


def test_every_class_of_block_has_its_macro() -> None:
    found = {
        value
        for module in (blocks, charts, turntable)
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Block) and dataclasses.is_dataclass(value)
    }
    assert {type(block) for block in every_block("words")} == found


@pytest.mark.parametrize("block", every_block(EVIL), ids=lambda block: type(block).__name__)
def test_every_text_is_escaped(block: Block) -> None:
    """The legend of a scatter cuts names; all else is shown as it is."""
    html = render_block(block)
    words = render_block(every_block("words")[index_of(block)])
    assert EVIL not in html and html.count("<script") == words.count("<script")
    page = ParsedPage(html)
    shown = [*page.texts, *(value for _, value in page.attributes)]
    assert any(EVIL in text for text in shown)
    without = ParsedPage(words)
    assert len(page.attributes) == len(without.attributes), "no text became markup"


def index_of(block: Block) -> int:
    return [type(other) for other in every_block("")].index(type(block))


def test_strings_break_lines_and_texts_hold_code() -> None:
    assert render_block("a<\nb") == "a&lt;<br>b"
    assert "run <code>a &lt; b</code> now" in render_block(Text("run `a < b` now"))
    assert "<code>x</code>" in render_block(Bullets(["`x`"]))


def test_pictures_hold_themselves_and_are_loaded_when_needed() -> None:
    page = ParsedPage(render_block(picture("a hand")))
    assert page.values("src")[0].startswith("data:image/webp;base64,")
    assert page.values("loading") == ["lazy"] and page.alternatives == ["a hand"]
    assert (page.values("width"), page.values("height")) == (["5"], ["3"])


def test_a_table_heads_its_columns_and_rows() -> None:
    page = ParsedPage(render_block(Table(["", "mean"], [["PCA", "1.0"], ["coma", "2.0"]], "named")))
    assert page.values("scope") == ["col", "col", "row", "row"]
    assert page.values("class") == ["scroll", "named"]
    assert [text for text in page.texts if text.strip()] == ["mean", "PCA", "1.0", "coma", "2.0"]


def test_few_pictures_are_not_as_wide_as_the_page() -> None:
    assert Table(["", "a"], [], "pictures").classes == "pictures narrow"
    assert Table([""] * 7, [], "pictures").classes == "pictures"
    assert Table(["", "a"], []).classes == ""


def test_a_page_links_to_its_sections() -> None:
    sections = [Section("Best & worst", [Text("words")]), Section("On `hands`", [])]
    page = Page("window", "heading", sections, "above", "below", [Heading("opening")], footer="end")
    parsed = ParsedPage(render_page(page))
    assert parsed.values("href") == ["#best-worst", "#on-hands"]
    assert parsed.values("id") == ["best-worst", "on-hands"]
    for text in ("window", "heading", "above", "below", "opening", "words", "end", "hands"):
        assert text in parsed.texts
    bare = ParsedPage(render_page(dataclasses.replace(page, contents=False)))
    assert not bare.values("href") and bare.values("id") == parsed.values("id")


def test_color_bars_of_different_scales_do_not_share_a_gradient() -> None:
    html = "".join(render_block(ColorBar(limit, "error")) for limit in (1.0, 2.0))
    page = ParsedPage(html)
    fills = [value for value in page.values("fill") if value.startswith("url")]
    assert len(set(fills)) == 2
    assert [value[5:-1] for value in fills] == page.values("id")
