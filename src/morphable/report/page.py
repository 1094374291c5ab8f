"""write_report: one HTML file that shows a model: pictures, charts and tables, with nothing outside
the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import morphable
from morphable.errors import InputError
from morphable.evaluate.record import Measured
from morphable.files import write_text
from morphable.models.families import MODELS
from morphable.report.arithmetic import arithmetic
from morphable.report.context import ReportContext
from morphable.report.gallery import extremes, hero, places, reconstructions, samples, walks
from morphable.report.headline import headline
from morphable.report.identity import identity_codes, named_expressions, neutral_shapes, swaps
from morphable.report.level_map_pictures import mapped_vertices, receptive_fields
from morphable.report.measures import code_length, distributions, training
from morphable.report.points import point_clouds
from morphable.report.record import all_measures, provenance
from morphable.report.region_edits import region_edits
from morphable.report.section import Section, SectionMaker, paragraph
from morphable.report.token_tests import corrupted_tokens, drawn_regions

SECTIONS: tuple[SectionMaker, ...] = (
    reconstructions,
    distributions,
    places,
    extremes,
    neutral_shapes,
    swaps,
    named_expressions,
    identity_codes,
    point_clouds,
    walks,
    samples,
    region_edits,
    drawn_regions,
    corrupted_tokens,
    arithmetic,
    mapped_vertices,
    receptive_fields,
    code_length,
    training,
)
"""What every report shows, if it applies to the model."""
APPENDIX: tuple[SectionMaker, ...] = (all_measures, provenance)


def write_report(result: Measured, metrics: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the report of a measured model as one HTML file that needs nothing else.

    metrics: the rows of metrics.jsonl, empty for an estimated model. Raises InputError if the file
    cannot be written.
    """
    context = ReportContext(result, metrics, path.parent)
    sections = [made for make in (*SECTIONS, *APPENDIX) if (made := _made(make, context))]
    write_text(path, _page(context, sections))


def _made(make: SectionMaker, context: ReportContext) -> Section | None:
    """A section; where the model cannot do what it shows, the reason in its place."""
    try:
        return make(context)
    except InputError as error:
        return Section(
            make.__name__.replace("_", " ").capitalize(), paragraph(f"Not shown: {error}")
        )


def _page(context: ReportContext, sections: Sequence[Section]) -> str:
    title = f"{context.name} on {context.model.template.name}s"
    style = (resources.files("morphable.report") / "style.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{_anchor(s.title)}">{escape(s.title)}</a>' for s in sections)
    body = "".join(
        f'<section id="{_anchor(s.title)}"><h2>{escape(s.title)}</h2>{s.html}</section>'
        for s in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: report</title><style>{style}</style></head><body>"
        f'<header class="top">{_heading(context)}'
        f'<div class="hero">{headline(context)}{hero(context)}</div><nav aria-label="Sections">{links}</nav></header>'
        f"<main>{body}</main><footer>Written by morphable {escape(morphable.__version__)}.</footer></body></html>\n"
    )


def _heading(context: ReportContext) -> str:
    model = context.model
    parts = ", ".join(
        f"{p.name} {p.size}{' (given)' if p.pinned else ''}" for p in model.parts.items_
    )
    known = MODELS.get(model.family)
    summary = known.summary if known else type(model).__name__
    return (
        f'<p class="kind">Morphable model of class “{escape(model.template.name)}”, '
        f"{model.template.n_vertices:,} vertices</p><h1>{escape(context.name)}</h1>"
        f'<p class="kind">{escape(summary[0].upper() + summary[1:])}. '
        f"Code of {model.parts.size} numbers: {escape(parts)}.</p>"
    )


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
