"""Render pages as HTML with the templates. All text is escaped, and a page loads nothing from
outside its file.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from morphable.draw.blocks import Block, Page
from morphable.draw.pictures import webp


def render_page(page: Page) -> str:
    """Render a whole page, with its style sheet and pictures in it."""
    return _environment().get_template("page.html").render(page=page) + "\n"


def render_block(block: str | Block) -> Markup:
    """Render one block, or a string in place of one."""
    if isinstance(block, str):
        return Markup("<br>").join(block.split("\n"))
    macros = _environment().get_template(block.template).module
    return Markup(getattr(macros, type(block).__name__.lower())(block))


def data_uri(picture: np.ndarray) -> str:
    """Return a picture (h, w, 4) uint8 as a data URI, an address that contains the picture."""
    return "data:image/webp;base64," + base64.b64encode(webp(picture)).decode()


def with_code(text: str) -> Markup:
    """Escape a text and mark words between backticks as code.

    >>> with_code("`a<b` & c")
    Markup('<code>a&lt;b</code> &amp; c')
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def anchor(title: str) -> str:
    """Return the anchor of a title, the name of its place on the page.

    >>> anchor("Best & worst")
    'best-worst'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("morphable.draw"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers: dict[str, Any] = {"show": render_block, "data_uri": data_uri}
    environment.globals.update(helpers)
    environment.filters.update(with_code=with_code, anchor=anchor, px="{:.1f}".format)
    return environment
