"""Section: one titled piece of a report, and the pieces of HTML that sections are made of."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from morphable.draw.numbers import number
from morphable.draw.render import heat_colors
from morphable.draw.strips import png
from morphable.report.context import ReportContext


@dataclass(frozen=True)
class Section:
    """title: plain text. html: the content, with everything from outside escaped."""

    title: str
    html: str


SectionMaker = Callable[[ReportContext], Section | None]
"""Makes a section, or None where it has nothing to say of this model. It may raise InputError,
which is then shown.
"""


def image(picture: np.ndarray, alt: str) -> str:
    """An <img> that carries the picture (h, w, 4) uint8 in itself."""
    data = base64.b64encode(png(picture)).decode()
    height, width = picture.shape[:2]
    source = f"data:image/png;base64,{data}"
    return f'<img width="{width}" height="{height}" alt="{escape(alt, quote=True)}" src="{source}">'


def paragraph(text: str, kind: str = "") -> str:
    """A <p> of plain text."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of ready HTML cells; the first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table{_class(kind)}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def color_bar(limit_mm: float, label: str) -> str:
    """The scale of `heat_colors` as an SVG: 0 to `limit_mm`, and above it the last color."""
    shares = np.linspace(0, 1, 17)
    colors = np.round(255 * heat_colors(shares * limit_mm, limit_mm)).astype(int)
    stops = "".join(
        f'<stop offset="{share:.4f}" stop-color="rgb({r},{g},{b})"/>'
        for share, (r, g, b) in zip(shares, colors, strict=True)
    )
    ticks = "".join(
        f'<text class="tick" x="{10 + 320 * share}" y="32" text-anchor="{anchor}">{text}</text>'
        for share, anchor, text in (
            (0, "start", "0"),
            (0.5, "middle", number(limit_mm / 2, 2)),
            (1, "end", f"≥ {number(limit_mm, 2)} mm"),
        )
    )
    name = f"heat-{limit_mm:g}-{label.replace(' ', '-')}"
    said = escape(f"{label}: color scale from 0 to {number(limit_mm, 2)} mm", quote=True)
    return (
        f'<svg class="colorbar" viewBox="0 0 340 54" role="img" aria-label="{said}"><defs>'
        f'<linearGradient id="{name}">{stops}</linearGradient></defs>'
        f'<rect x="10" y="4" width="320" height="14" rx="4" fill="url(#{name})"/>{ticks}'
        f'<text class="tick" x="170" y="50" text-anchor="middle">{escape(label)}</text></svg>'
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
