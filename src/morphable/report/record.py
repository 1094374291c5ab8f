"""Sections of tables: all measures with their spread, and where data, model and numbers come
from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from morphable.draw.blocks import Block, Code, Facts, Heading, Section, Table, Text
from morphable.draw.numbers import DASH, interval, number
from morphable.evaluate.evaluation import METHODS
from morphable.evaluate.intervals import no_interval
from morphable.evaluate.measure_table import measure_of, titled
from morphable.report.context import ReportContext

STATISTICS = ("std", "median", "p95", "max")
HEADER = (
    "measure, mm",
    "method",
    "mean",
    "95 % confidence interval",
    "standard deviation",
    "median",
    "95th percentile",
    "maximum",
)
SPREAD = (
    "The confidence interval is that of the mean. The other statistics tell how the values "
    "themselves are spread: 95 % of them lie below the 95th percentile."
)


def all_measures(context: ReportContext) -> Section:
    """Show all numbers of evaluation.json."""
    spread, single = [], []
    meanings = {}
    for key, name, value in _values(context):
        measure, _ = measure_of(key)
        if isinstance(value, Mapping):
            statistics = [number(value.get(k)) for k in STATISTICS]
            bounds = interval(value.get("ci95")) or DASH
            spread.append([titled(key), name, number(value["mean"]), bounds, *statistics])
            meanings[measure.title] = measure.described
        else:
            text = f"{number(value)} {measure.unit}".rstrip()
            single.append([titled(key), name, text, measure.described])
    blocks: list[Block] = []
    if spread:
        blocks = [Table(HEADER, spread, "named"), Facts(meanings), Text(SPREAD, "note")]
    if any(row[3] == DASH for row in spread):
        blocks.append(Text(f"{DASH}: {no_interval(context.subjects)}.", "note"))
    if single:
        header = ["measure", "method", "value", "meaning"]
        blocks += [Heading("Further measures"), Table(header, single, "named further")]
    record = {key: value for key, value in context.record.items() if key != "provenance"}
    blocks.append(Code(json.dumps(record, indent=1), summary="All digits (evaluation.json)"))
    return Section("All measures", blocks)


def _values(context: ReportContext) -> Iterator[tuple[str, str, Any]]:
    """Yield (key, name of the method, value), without lists, which have charts of their own."""
    baselines = context.record.get("baselines", {})
    methods = dict.fromkeys((*METHODS, *baselines))
    measured = {method: context.measures(method) for method in methods}
    # dict.fromkeys drops repeated keys and, unlike a set, keeps their order.
    for key in dict.fromkeys(key for measures in measured.values() for key in measures):
        for method, measures in measured.items():
            value = measures.get(key)
            if isinstance(value, int | float) or (isinstance(value, Mapping) and "mean" in value):
                yield key, context.scene.method_name(method), value


def provenance(context: ReportContext) -> Section:
    """Say where everything comes from: enough to reproduce the numbers."""
    record, evaluation = context.provenance, context.result.evaluation
    whole, split = evaluation.data.whole, evaluation.data.split
    template = context.model.template
    train = record.get("train") or {}
    versions = record.get("versions") or {}
    measured = context.record.get("provenance", {})
    facts = {
        "Data": whole.info.get("source", "not recorded"),
        "Licence of the data": whole.info.get("licence", "not recorded"),
        "Data content hash": whole.info.get("content_hash", DASH),
        "Meshes": f"{len(whole):,} of {template.n_vertices:,} vertices",
        "Split": f"{evaluation.data.name}: {len(split.train):,} training, {len(split.val):,} "
        f"validation, {len(split.test):,} test meshes; hash {split.hash}, seed {split.seed}",
        "Measured": f"{len(evaluation.measured):,} {evaluation.subset} meshes of "
        f"{measured.get('subjects', DASH)} subjects",
        "Training seed": train.get("seed", DASH if train else "none: estimated in closed form"),
        "Recipe": record.get("recipe", DASH),
        "Training settings": ", ".join(f"{k} {v}" for k, v in train.items()) or DASH,
        "Trainable parameters": f"{sum(p.numel() for p in context.model.parameters()):,}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or DASH,
        "Threads": measured.get("threads", record.get("threads", DASH)),
        "Template": f"{template.name}, fingerprint {template.fingerprint}",
    }
    command = str(record.get("command", "not recorded"))
    return Section(
        "Where this comes from",
        [
            Heading("Command"),
            Code(command),
            Facts({name: str(fact) for name, fact in facts.items()}),
        ],
    )
