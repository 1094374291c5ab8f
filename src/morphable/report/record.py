"""Table sections: every measure with its spread, and where data, model and numbers come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from morphable.draw.numbers import DASH, interval, number
from morphable.evaluate.measure_table import measure_of, titled
from morphable.report.context import ReportContext
from morphable.report.section import Section, table


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
        title, measure = escape(titled(key)), measure_of(key)[0]
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
                        f"{number(value)} {measure.unit}".rstrip(),
                        escape(measure.meaning),
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
