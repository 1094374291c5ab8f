"""The head of a report: the mean vertex error, and honestly how it stands against PCA at the same
latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from morphable.draw.numbers import interval, millimeters, number, percent, signed
from morphable.evaluate.errors import bootstrap_interval
from morphable.evaluate.evaluation import MODEL, PCA
from morphable.report.context import ReportContext

NEGLIGIBLE = 5e-4
"""A relative difference below this is none."""


@dataclass(frozen=True)
class Verdict:
    """How the model stands against PCA. better: None where the test meshes do not tell."""

    text: str
    emphasis: str
    better: bool | None


def setting(context: ReportContext) -> str:
    """On what the errors were measured, in words that cannot be mistaken for more."""
    split, part = context.split, context.part
    if part == "train":
        return "on its own training meshes"
    held = "validation" if part == "val" else "unseen"
    if split == "subject":
        return f"on {held} subjects"
    if split.startswith("expression-"):
        if part == "val":
            return "on validation sequences of the expressions it trained on"
        return f"on the unseen expression “{split.removeprefix('expression-')}”"
    if split.startswith("frames"):
        return "on held-out frames of subjects that were seen in training"
    return f"on {held} meshes of the split “{split}”"


def verdict(context: ReportContext) -> Verdict:
    """The headline comparison, with a paired interval: differences mesh by mesh, whole subjects
    redrawn.
    """
    own, other = _mean(context, "model"), _mean(context, "pca")
    if context.pca is None or own is None or not other:
        mean_shape = _mean(context, "mean_shape")
        if own is None or not mean_shape:
            return Verdict("", "", None)
        return Verdict(
            f"than the mean shape {setting(context)}.", _change(own, mean_shape), own < mean_shape
        )
    where = f"than PCA with the same {context.latent} latents {setting(context)}"
    evaluation = context.result.evaluation
    difference = evaluation.mesh_errors[MODEL] - evaluation.mesh_errors[PCA]
    if len(set(evaluation.groups.tolist())) < 2:
        return Verdict(
            f"{where}. With one test subject there is no interval.", _change(own, other), None
        )
    low, high = bootstrap_interval(difference, evaluation.groups)
    bounds = f"[{signed(low)}, {signed(high)}]"
    paired = (
        f"Mesh by mesh the difference is {signed(difference.mean())} mm, 95 % interval {bounds}"
    )
    if low <= 0 <= high or abs(own / other - 1) < NEGLIGIBLE:
        return Verdict(
            f"{where}. {paired}: these meshes do not tell which is better.",
            _change(own, other),
            None,
        )
    return Verdict(f"{where}. {paired}.", _change(own, other), own < other)


def _mean(context: ReportContext, name: str) -> float | None:
    results = context.evaluation.get("model" if name == "model" else "baselines", {})
    measures = results if name == "model" else results.get(name, {})
    value = measures.get("vertex_error_mm", {}).get("mean")
    return None if value is None else float(value)


def _change(own: float, other: float) -> str:
    change = own / other - 1
    if abs(change) < NEGLIGIBLE:
        return "0 % different"
    return f"{percent(abs(change))} {'lower' if change < 0 else 'higher'}"


def headline(context: ReportContext) -> str:
    """The large number, the verdict and the bars at the head of the page."""
    own = context.evaluation.get("model", {}).get("vertex_error_mm", {})
    said = verdict(context)
    kind = "verdict" if said.better is not False else "verdict worse"
    marked = f"<b>{said.emphasis}</b>" if said.better is not None else said.emphasis
    bounds = interval(own.get("ci95"))
    return (
        f'<div><p class="headline">{number(own.get("mean"))} <small>mm mean vertex error</small></p>'
        f'<p class="note">{escape(setting(context))}'
        + (f"; 95 % interval {bounds} mm, whole subjects redrawn" if bounds else "")
        + f'</p><p class="{kind}">{marked} {escape(said.text)}</p>{_bars(context)}'
        f'<p class="note">{_caution(context)}</p></div>'
    )


def _caution(context: ReportContext) -> str:
    if context.pca is None:
        return "Bars: mean vertex error; whiskers: 95 % interval."
    return (
        "Bars: mean vertex error; whiskers: 95 % interval. One training run: call a model better only after at least "
        "three seeds."
    )


def _bars(context: ReportContext) -> str:
    baselines = context.evaluation.get("baselines", {})
    found = [(context.name, 0, context.evaluation.get("model", {}))]
    if context.pca is not None:
        found.append((f"PCA, {context.latent} latents", 1, baselines.get("pca", {})))
    found.append(("mean shape", 2, baselines.get("mean_shape", {})))
    shown = [(name, c, m["vertex_error_mm"]) for name, c, m in found if "vertex_error_mm" in m]
    if not shown:
        return ""
    most = max([max(m["mean"], *m["ci95"]) for _, _, m in shown]) or 1.0
    rows = [
        _bar(34 * row, name, color, m, 290 / most) for row, (name, color, m) in enumerate(shown)
    ]
    label = "Mean vertex error: " + ", ".join(
        f"{name} {millimeters(m['mean'])}" for name, _, m in shown
    )
    size = f'viewBox="0 0 500 {34 * len(shown)}"'
    return f'<svg class="bars" {size} role="img" aria-label="{escape(label, quote=True)}">{"".join(rows)}</svg>'


def _bar(y: float, name: str, color: int, measure: Mapping[str, Any], length: float) -> str:
    """One bar with its whiskers; `length` of the picture per mm."""
    low, high = (122 + v * length for v in measure["ci95"])
    value = measure["mean"] * length
    return (
        f'<text x="114" y="{y + 21}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="fill c{color}" x="122" y="{y + 5}" width="{value:.1f}" height="24" rx="3"/>'
        f'<path class="whisker" d="M{low:.1f} {y + 17}H{high:.1f}M{low:.1f} {y + 12}v10M{high:.1f} {y + 12}v10"/>'
        f'<text x="{max(122 + value, high) + 8:.1f}" y="{y + 21}">{millimeters(measure["mean"])}</text>'
    )
