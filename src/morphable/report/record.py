"""Table sections: every measure with its spread, and where data, model and numbers come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from morphable.draw.numbers import DASH, interval, number
from morphable.report.context import ReportContext
from morphable.report.section import Section, table

MEASURES: dict[str, tuple[str, str]] = {
    "vertex_error_mm": (
        "vertex error",
        "distance to the true vertex, over all meshes and vertices",
    ),
    "mesh_error_mm": ("mesh error", "the same, over the means of each mesh"),
    "surface_distance_mm": ("surface distance", "nearest distance between the surfaces, both ways"),
    "self_intersections": (
        "self-intersecting faces",
        "faces per mesh, more than the true mesh has",
    ),
    "self_intersections_of_truth": ("the same in the true meshes", "faces per mesh"),
    "generalisation_mm": (
        "generalisation",
        "the mean vertex error again, by its name in the shape model literature",
    ),
    "specificity_mm": (
        "specificity",
        "mean distance of a random sample to the nearest training mesh",
    ),
    "disentanglement_error_mm": (
        "disentanglement error",
        "identity's neutral shape across expressions, standard deviation",
    ),
    "disentanglement_error_rms_mm": ("the same, root mean square", ""),
    "neutral_error_mm": (
        "neutral error",
        "the neutral shape that the identity part gives, to the true one",
    ),
    "expression_kept": (
        "expression kept",
        "share of the variance within each person that reconstructions have",
    ),
    "swap_error_mm": (
        "swap error",
        "one mesh's identity with another's expression, to the true answer",
    ),
    "identity_leakage": (
        "identity leakage",
        "share of subjects a linear probe reads off the expression code",
    ),
    "identity_leakage_nonlinear": ("the same, non-linear probe", "support vector machine"),
    "identity_leakage_chance": ("the same by chance", "always the commonest subject"),
    "expression_leakage": (
        "expression leakage",
        "share of expressions a linear probe reads off the identity code",
    ),
    "expression_leakage_nonlinear": ("the same, non-linear probe", "support vector machine"),
    "expression_leakage_chance": ("the same by chance", "always the commonest expression"),
    "diversity_mm": ("diversity", "mean distance between two random samples"),
    "control_error_mm": ("control error", "of edited vertices to where they were put"),
    "other_error_mm": ("error elsewhere", "of all other vertices after an edit"),
}
"""Titles and explanations; a measure without one is shown by its own name."""


def all_measures(context: ReportContext) -> Section:
    titles = {"pca": f"PCA, {context.latent} latents", "mean_shape": "mean shape"}
    baselines = dict(context.evaluation.get("baselines", {}))
    ordered = {name: baselines[name] for name in (*titles, *baselines) if name in baselines}
    results = [(context.name, context.evaluation.get("model", {}))]
    results += [
        (titles.get(name, name.replace("_", " ")), result) for name, result in ordered.items()
    ]
    rows, single = [], []
    for key in dict.fromkeys(key for _, result in results for key in result):
        title, meaning = _titled(key)
        for name, result in results:
            value = result.get(key)
            if isinstance(value, Mapping) and "mean" in value:
                spreads = [number(value.get(k)) for k in ("std", "median", "p95", "max")]
                rows.append(
                    [
                        title,
                        escape(name),
                        number(value["mean"]),
                        interval(value.get("ci95")),
                        *spreads,
                    ]
                )
            elif isinstance(value, (int, float)):
                single.append(
                    [
                        title,
                        escape(name),
                        f"{number(value)}{' mm' if key.endswith('_mm') else ''}",
                        escape(meaning),
                    ]
                )
    header = [
        "measure, mm",
        "of",
        "mean",
        "95 % interval",
        "std",
        "median",
        "95th percentile",
        "max",
    ]
    html = table(header, rows, "named") if rows else ""
    if single:
        html += "<h3>Further measures</h3>" + table(
            ["measure", "of", "value", "meaning"], single, "named further"
        )
    raw = escape(
        json.dumps({k: v for k, v in context.evaluation.items() if k != "provenance"}, indent=1)
    )
    html += f"<details><summary>All digits (evaluation.json)</summary><pre>{raw}</pre></details>"
    return Section("All measures", html)


def _titled(key: str) -> tuple[str, str]:
    base, _, area = key.partition("/")
    title, meaning = MEASURES.get(base, (base.removesuffix("_mm").replace("_", " "), ""))
    return escape(f"{title}, {area}" if area else title), meaning


def provenance(context: ReportContext) -> Section:
    """Where everything came from: enough to make the numbers again."""
    record = dict(context.model.provenance) | dict(context.provenance.get("model") or {})
    split = context.result.evaluation.data.split
    train = record.get("train") or {}
    versions = record.get("versions") or {}
    subjects = context.provenance.get("subjects", DASH)
    rows = {
        "Data": context.dataset.info.get("source", "not recorded"),
        "Licence of the data": context.dataset.info.get("licence", "not recorded"),
        "Data content hash": context.dataset.info.get("content_hash", DASH),
        "Meshes": f"{len(context.dataset):,} of {context.model.template.n_vertices:,} vertices",
        "Split": f"{context.split}: {len(split.train):,} training, {len(split.val):,} validation, {len(split.test):,} "
        f"test meshes; hash {split.hash}, seed {split.seed}",
        "Measured": f"{len(context.measured):,} {context.part} meshes of {subjects} subjects",
        "Training seed": train.get("seed", "none: estimated in closed form" if not train else DASH),
        "Recipe": record.get("recipe", DASH),
        "Training settings": ", ".join(f"{k} {v}" for k, v in train.items()) or DASH,
        "Trained parameters": f"{sum(p.numel() for p in context.model.parameters()):,}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or DASH,
        "Threads": context.provenance.get("threads", record.get("threads", DASH)),
        "Template": f"{context.model.template.name}, fingerprint {context.model.template.fingerprint}",
    }
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in rows.items()
    )
    command = f"<pre>{escape(str(record.get('command', 'not recorded')))}</pre>"
    return Section("Where this comes from", f"<h3>Command</h3>{command}<dl>{items}</dl>")
