"""registration_page: the report cards of registered scans: each scan, the mesh, and how far they are
apart.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import morphable
from morphable.draw.blocks import (
    BigNumber,
    Block,
    Cell,
    ColorBar,
    Columns,
    Page,
    Section,
    Table,
    Text,
)
from morphable.draw.camera import view_for
from morphable.draw.colors import heat_colors, scale_end
from morphable.draw.html import render_page
from morphable.draw.numbers import number
from morphable.draw.view import View
from morphable.errors import InputError
from morphable.files import write_json, write_text
from morphable.mesh.template import Template
from morphable.register.card import Card
from morphable.register.folder import Registered, read_target

MAX_SHOWN = 24
"""Scans with pictures, the rejected ones first; the table of numbers has all."""
HEADER = [
    "scan", "verdict", "scan to mesh: median, mm", "90 % below, mm", "max, mm",
    "mesh to scan: median, mm", "90 % below, mm", "covered", "flipped faces", "stretched edges",
    "size", "aligned", "remark",
]  # fmt: skip


def registration_page(
    template: Template, scans: Sequence[Registered], unit: str | None = None
) -> Page:
    """The page of a registration, as values. unit: of the scans' files."""
    errors = [scan.card.scan_to_mesh.median for scan in scans if scan.card.accepted]
    text = "scans were accepted."
    if errors:
        middle = number(float(np.median(errors)))
        text += f" The median over them of the median distance from scan to mesh is {middle} mm."
    kept = len(errors)
    opening: list[Block] = [Columns([[BigNumber(f"{kept} / {len(scans)}", "scans")], [Text(text)]])]
    return Page(
        title=f"Registration on {template.name}",
        above=f"Template “{template.name}”, {template.n_vertices:,} vertices",
        heading=f"Registration on {template.name}",
        below=f"{len(scans)} scan{'s' * (len(scans) != 1)}, {len(scans) - kept} rejected.",
        opening=opening,
        sections=[_numbers(scans), *_pictures(template, scans, unit)],
        footer=f"Written by morphable {morphable.__version__}.",
    )


def _numbers(scans: Sequence[Registered]) -> Section:
    rows = [_row(scan.path.name, scan.card) for scan in scans]
    note = (
        "Distances are those after the non-rigid alignment, in the scan's own size; the column "
        "“aligned” says what came before. They say how near the surfaces are, not how near each "
        "vertex is to the same place of another scan: along smooth skin a mesh can slide unseen. "
        "Points of the scan beyond the mesh's border do not count, nor do vertices that the scan "
        "does not show."
    )
    return Section("Report cards", [Table(HEADER, rows, "named"), Text(note, "note")])


def _row(name: str, card: Card) -> list[str]:
    """The numbers of a card under HEADER."""
    forth, back = card.scan_to_mesh, card.mesh_to_scan
    regions = f"stretched in {', '.join(card.regions)}" if card.regions else ""
    return [
        name,
        "accepted" if card.accepted else "rejected",
        *map(number, (forth.median, forth.p90, forth.max, back.median, back.p90)),
        f"{100 * card.coverage:.0f} %",
        f"{card.flipped:,}",
        f"{100 * card.stretched:.1f} %",
        f"{card.size:.3f}",
        card.aligned,
        card.reason or regions,
    ]


def _pictures(template: Template, scans: Sequence[Registered], unit: str | None) -> list[Section]:
    ordered = sorted(scans, key=lambda scan: scan.card.accepted)
    found = [(scan, scan.registration) for scan in ordered if scan.registration is not None]
    found = found[:MAX_SHOWN]
    if not found:
        return []
    known = np.concatenate([one.distance[np.isfinite(one.distance)] for _, one in found])
    limit = max(scale_end(known), 1e-3) if len(known) else 1.0
    camera = view_for(template, [one.vertices for _, one in found])
    view = View(camera, template.mesh.triangles)
    rows: list[list[Cell]] = []
    for scan, one in found:
        colors = heat_colors(one.distance, limit)
        name = scan.path.name
        verdict = "accepted" if scan.card.accepted else f"rejected: {scan.card.reason}"
        rows.append(
            [
                f"{name}\n{verdict}",
                _scan_picture(template, view, scan, unit),
                view.picture(one.vertices, f"{name}: the mesh"),
                view.picture(one.vertices, f"{name}: distances", colors),
            ]
        )
    header = ["", "scan", "mesh", "distance to the scan"]
    bar = ColorBar(limit, "distance to the scan, mm")
    unseen = Text("Gray: the scan shows nothing there.", "note")
    return [Section("Pictures", [Table(header, rows, "pictures"), bar, unseen])]


def _scan_picture(template: Template, view: View, scan: Registered, unit: str | None) -> Cell:
    """The scan where the mesh lies; a cloud of points has no picture."""
    assert scan.registration is not None
    try:
        target = read_target(scan.path, template, unit)
    except InputError:  # removed in the meantime
        return "–"
    if not len(target.triangles):
        return f"{len(target.scan.points):,} points"
    placed = scan.registration.map.apply(target.scan.points)
    own = replace(view, triangles=target.triangles)
    return own.picture(placed, f"{scan.path.name}: the scan")


def write_cards(folder: Path, page: Page, scans: Sequence[Registered]) -> None:
    """Write the report cards: registration.html, registration.json and registration.csv.

    page: what `registration_page` gave.
    """
    write_text(folder / "registration.html", render_page(page))
    records = [{"file": str(scan.path), **scan.card.record()} for scan in scans]
    write_json(folder / "registration.json", records)
    text = io.StringIO()
    flat = [_flat(record) for record in records]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_text(folder / "registration.csv", text.getvalue())


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{part}_mm": distance for part, distance in value.items()}
        else:
            flat[name] = " ".join(value) if isinstance(value, (tuple, list)) else value
    return flat
