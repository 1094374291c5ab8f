"""write_report: one HTML file with pictures, charts and tables that shows a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import morphable
from morphable.draw.blocks import Columns, Page, Section, Text
from morphable.draw.html import render_page
from morphable.errors import InputError
from morphable.evaluate.record import Measured
from morphable.files import write_text
from morphable.models.base import MorphableModel
from morphable.models.families import MODELS
from morphable.report.arithmetic import arithmetic
from morphable.report.chart_sections import distributions, latent_size, training
from morphable.report.context import ReportContext, SectionMaker
from morphable.report.gallery import extremes, hero, reconstructions, samples, walks
from morphable.report.generation import (
    class_codes,
    nearest_and_furthest,
    shared_parts,
    strips,
)
from morphable.report.geometry_images import geometry_images
from morphable.report.headline import headline
from morphable.report.identity import identity_codes, named_expressions, neutral_shapes, swaps
from morphable.report.level_map_pictures import mapped_vertices, receptive_fields
from morphable.report.part_sections import diversity_plot, part_interpolations, part_weights
from morphable.report.places import places
from morphable.report.points import point_clouds
from morphable.report.record import all_measures, provenance
from morphable.report.region_edits import region_edits
from morphable.report.shape_space import shape_space
from morphable.report.token_tests import corrupted_tokens, drawn_regions

SECTIONS: tuple[SectionMaker, ...] = (
    shape_space,
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
    nearest_and_furthest,
    shared_parts,
    strips,
    class_codes,
    geometry_images,
    part_weights,
    part_interpolations,
    diversity_plot,
    region_edits,
    drawn_regions,
    corrupted_tokens,
    arithmetic,
    mapped_vertices,
    receptive_fields,
    latent_size,
    training,
    all_measures,
    provenance,
)
"""All sections in the order of the page. Those that do not apply to the model are left out."""


Advance = Callable[[int, int, str], None]
"""Called before each step with the number of steps done, the number of all, and what comes next."""


def write_report(
    result: Measured,
    metrics: Sequence[Mapping[str, Any]],
    path: Path,
    advance: Advance = lambda done, total, what: None,
) -> None:
    """Write the report of a measured model as one HTML file that loads nothing else.

    metrics: the rows of metrics.jsonl, empty for an estimated model. advance: to show progress.
    Raises InputError if the file cannot be written.
    """
    page = report_page(ReportContext(result, metrics, path.parent), advance)
    write_text(path, render_page(page))


def report_page(context: ReportContext, advance: Advance = lambda done, total, what: None) -> Page:
    """Return the page as values, not yet rendered."""
    total = len(SECTIONS) + 2
    advance(0, total, "report: samples and latent walks")
    opening = [Columns([headline(context), hero(context.scene)], "hero")]
    sections = []
    for done, make in enumerate(SECTIONS, start=1):
        advance(done, total, f"report: {_name(make)}")
        if made := _made(make, context):
            sections.append(made)
    advance(total - 1, total, "report: writing the page")
    scene, template = context.scene, context.model.template
    family = MODELS.get(context.model.family)
    summary = family.summary if family else type(context.model).__name__
    summary = summary[0].upper() + summary[1:]
    return Page(
        title=f"{scene.name} on {template.name}s: report",
        above=f"Morphable model of class “{template.name}”, {template.n_vertices:,} vertices",
        heading=scene.name,
        below=f"{summary}. {_size(context.model)}{_points(context.model)}",
        opening=opening,
        sections=sections,
        footer=f"Written by morphable {morphable.__version__}.",
    )


def _made(make: SectionMaker, context: ReportContext) -> Section | None:
    """Make a section. If the model cannot do what it shows, give the reason in its place."""
    try:
        return make(context)
    except InputError as error:
        return Section(_name(make).capitalize(), [Text(f"Not shown: {error}")])


def _name(make: SectionMaker) -> str:
    return make.__name__.replace("_", " ")


def _size(model: MorphableModel) -> str:
    """Say the latent size and the sizes of the parts."""
    return f"Latent size {model.latent}: {model.parts.described}."


def _points(model: MorphableModel) -> str:
    return " It encodes points in any order." if model.encodes_points else ""
