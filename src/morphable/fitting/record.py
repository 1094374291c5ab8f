"""write_fit: a fit as files: the mesh, the code for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from morphable.data.registered_mesh import write_shape
from morphable.files import write_json, write_npz
from morphable.fitting.result import CONFIDENCE, Fit
from morphable.models.base import MorphableModel


def write_fit(
    folder: Path,
    name: str,
    model: MorphableModel,
    fit: Fit,
    row: int,
    suffix: str,
    unit: str | None = None,
) -> None:
    """Write NAME.`suffix`, the fitted mesh where the target lies; NAME.npz, all arrays; and
    NAME.json, the code by part, the pose and the numbers.

    row: which of the fit's shapes. unit: of the mesh file; None: mm, or m for glTF.
    """
    write_shape(folder / f"{name}.{suffix}", fit.placed[row], model.template, unit)
    write_npz(folder / f"{name}.npz", fit_arrays(fit, row))
    write_json(folder / f"{name}.json", fit_record(model, fit, row))


def fit_arrays(fit: Fit, row: int) -> dict[str, np.ndarray]:
    """The arrays of one shape: `code` (L,) with its `covariance` (L, L), `vertices` (V, 3) mm in
    the model's frame with their `uncertainty` (V,) mm, `residuals` mm, and the map from the target
    to the model's frame.
    """
    return {
        "code": fit.code[row].cpu().numpy(),
        "covariance": fit.covariance[row].astype(np.float32),
        "vertices": fit.vertices[row],
        "uncertainty": fit.uncertainty[row].astype(np.float32),
        "residuals": fit.residuals[row].astype(np.float32),
        "rotation": fit.map.rotation[row],
        "translation": fit.map.translation[row],
        "scale": np.asarray(fit.map.scale[row]),
    }


def fit_record(model: MorphableModel, fit: Fit, row: int) -> dict[str, Any]:
    """The content of NAME.json."""
    code = fit.code[row].cpu().tolist()
    residuals = fit.residuals[row][np.isfinite(fit.residuals[row])]
    return {
        "family": model.family,
        "code": {name: code[model.parts[name]] for name in model.parts},
        "to_model": {
            "rotation": fit.map.rotation[row].tolist(),
            "translation_mm": fit.map.translation[row].tolist(),
            "scale": float(fit.map.scale[row]),
        },
        "residual_mm": {
            "mean": float(residuals.mean()),
            "median": float(np.median(residuals)),
            "p95": float(np.percentile(residuals, 95)),
            "max": float(residuals.max()),
            "count": len(residuals),
        },
        "noise_mm": float(fit.noise[row]),
        "uncertainty_mm": {
            "probability": CONFIDENCE,
            "mean": float(fit.uncertainty[row].mean()),
            "max": float(fit.uncertainty[row].max()),
        },
        "steps": int(fit.steps[row]),
    }
