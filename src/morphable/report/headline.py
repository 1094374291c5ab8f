"""The head of a report: the mean vertex error, and how it compares with PCA of the same latent
size. It claims a difference only if the measured meshes show one.
"""

from __future__ import annotations

from dataclasses import dataclass

from morphable.draw.blocks import BigNumber, Block, Text
from morphable.draw.charts import Bar, Bars
from morphable.draw.numbers import interval, millimeters, number, percent, signed
from morphable.evaluate.errors import little_learned
from morphable.evaluate.evaluation import MEAN_SHAPE, METHODS, MODEL, PCA
from morphable.evaluate.intervals import mean_interval, no_interval
from morphable.report.context import ReportContext

NEGLIGIBLE = 5e-4
"""Relative differences below this count as no difference."""
MULTIPLE = 2.0
"""An error at least this many times the other is given as a multiple, not in per cent."""
BAR_COLORS = {MODEL: 0, PCA: 1, MEAN_SHAPE: 2}


@dataclass(frozen=True)
class Verdict:
    """How the model compares with a baseline.

    emphasis, text: the two halves of one sentence. better: None if the measured meshes do not show
    which is better.
    """

    emphasis: str
    text: str
    better: bool | None


def setting(context: ReportContext) -> str:
    """Say on what the errors were measured, claiming no more than the split allows."""
    evaluation = context.result.evaluation
    split, subset = evaluation.data.name, evaluation.subset
    if subset == "train":
        return "on its own training meshes"
    held = "validation" if subset == "val" else "unseen"
    if split == "subject":
        return f"on {held} subjects"
    if split.startswith("expression-"):
        if subset == "val":
            return "on validation sequences of the expressions it trained on"
        return f"on the unseen expression “{split.removeprefix('expression-')}”"
    if split.startswith("frames"):
        return "on held-out frames of subjects that were seen in training"
    return f"on {held} meshes of the split “{split}”"


def verdict(context: ReportContext) -> Verdict | None:
    """Compare the model with PCA, or PCA with the mean shape; None if there is nothing to compare.

    The interval is a paired one: it is of differences mesh by mesh, and whole subjects are redrawn.
    """
    own, other = _mean(context, MODEL), _mean(context, PCA)
    if context.scene.pca is None or own is None or not other:
        mean_shape = _mean(context, MEAN_SHAPE)
        if own is None or not mean_shape:
            return None
        emphasis, text = compared(own, mean_shape, "the mean shape")
        return Verdict(emphasis, f"{text} {setting(context)}.", own < mean_shape)
    name = f"PCA with the same latent size ({context.scene.pca.latent})"
    emphasis, text = compared(own, other, name)
    text = f"{text} {setting(context)}."
    evaluation = context.result.evaluation
    difference = evaluation.mesh_errors[MODEL] - evaluation.mesh_errors[PCA]
    bounds = mean_interval(difference, evaluation.groups)
    if bounds is None:
        return Verdict(emphasis, f"{text} {_why_none(context)}.", None)
    low, high = bounds
    text += (
        f" The mean difference per mesh is {signed(difference.mean())} mm, "
        f"95 % confidence interval [{signed(low)}, {signed(high)}] mm (bootstrap over subjects)"
    )
    if low <= 0 <= high or abs(own / other - 1) < NEGLIGIBLE:
        return Verdict(emphasis, f"{text}: these meshes do not show which is better.", None)
    return Verdict(emphasis, f"{text}.", own < other)


def _why_none(context: ReportContext) -> str:
    reason = no_interval(context.subjects)
    return reason[0].upper() + reason[1:]


def compared(own: float, other: float, name: str) -> tuple[str, str]:
    """Put the comparison of two errors into words: what to emphasize, and the rest.

    >>> compared(0.8, 1.0, "PCA"), compared(257.0, 1.0, "PCA")
    (('20 % lower', 'than that of PCA'), ('257 times', 'the error of PCA'))
    """
    ratio = own / other
    if abs(ratio - 1) < NEGLIGIBLE:
        return "0 % different", f"from that of {name}"
    if ratio >= MULTIPLE:
        return f"{number(ratio)} times", f"the error of {name}"
    return f"{percent(abs(ratio - 1))} {'lower' if ratio < 1 else 'higher'}", f"than that of {name}"


def _mean(context: ReportContext, method: str) -> float | None:
    value = context.measures(method).get("vertex_error_mm", {}).get("mean")
    return None if value is None else float(value)


def headline(context: ReportContext) -> list[Block]:
    """Return the large number, the verdict and the bars at the head of the page."""
    error = context.measures().get("vertex_error_mm", {})
    bounds = interval(error.get("ci95"))
    where = setting(context)
    if bounds:
        where += f"; 95 % confidence interval {bounds} mm (bootstrap over subjects)"
    elif error:
        where += f"; {no_interval(context.subjects)}"
    blocks: list[Block] = [
        BigNumber(number(error.get("mean")), "mm mean vertex error"),
        Text(where[0].upper() + where[1:] + ".", "note"),
    ]
    if result := verdict(context):
        blocks.append(_sentence(result))
    mean_shape = _mean(context, MEAN_SHAPE)
    if error and mean_shape is not None:
        subset = context.result.evaluation.subset
        if said := little_learned(float(error["mean"]), mean_shape, subset):
            blocks.append(Text(said, "verdict worse"))
    if bars := _bars(context):
        caution = "Bars: mean vertex error"
        caution += "; whiskers: 95 % confidence interval." if bounds else "."
        if context.scene.pca is not None:
            caution += " One training run: call a model better only after at least three seeds."
        blocks += [bars, Text(caution, "note")]
    return blocks


def _sentence(result: Verdict) -> Text:
    # A difference that the meshes do not show gets no bold number.
    if result.better is None:
        return Text(f"{result.emphasis} {result.text}", "verdict")
    return Text(result.text, "verdict" if result.better else "verdict worse", result.emphasis)


def _bars(context: ReportContext) -> Bars | None:
    methods = [m for m in METHODS if m != PCA or context.scene.pca is not None]
    bars = []
    for method in methods:
        if error := context.measures(method).get("vertex_error_mm"):
            name, bounds = context.scene.method_name(method), error["ci95"]
            whiskers = (bounds[0], bounds[1]) if bounds else None
            text = millimeters(error["mean"])
            bars.append(Bar(name, BAR_COLORS[method], error["mean"], text, whiskers))
    if not bars:
        return None
    described = ", ".join(f"{bar.name} {bar.text}" for bar in bars)
    return Bars(bars, f"Mean vertex error: {described}")
