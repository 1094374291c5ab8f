"""Units of mesh files. Everything in memory is in millimeters."""

from __future__ import annotations

from pathlib import Path

from morphable.errors import InputError

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimeters per unit."""


def millimeters(unit: str) -> float:
    """Return the millimeters per unit. Raises InputError if the unit is unknown."""
    if unit not in UNITS:
        raise InputError(f"`unit` {unit}: expected one of {', '.join(UNITS)}", "unit")
    return UNITS[unit]


def unit_of(path: Path, unit: str | None = None) -> str:
    """The unit of a mesh file: `unit` if it is given, else mm, or m for glTF, which defines it."""
    if unit is not None:
        return unit
    return "m" if path.suffix.lower() in (".glb", ".gltf") else "mm"
