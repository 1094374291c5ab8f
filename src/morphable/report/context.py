"""ReportContext: what the sections of a report share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from morphable.draw.blocks import Section
from morphable.evaluate.evaluation import MODEL
from morphable.evaluate.record import Measured
from morphable.models.base import MorphableModel
from morphable.report.scene import Scene


@dataclass(frozen=True, eq=False)
class ReportContext:
    """Everything that a section may read.

    result: the evaluation and its measures. metrics: the rows of metrics.jsonl, empty for an
    estimated model. folder: the run folder, if there is one.
    """

    result: Measured
    metrics: Sequence[Mapping[str, Any]]
    folder: Path | None = None

    @cached_property
    def scene(self) -> Scene:
        """What is drawn."""
        return Scene(self.result.evaluation)

    @property
    def model(self) -> MorphableModel:
        return self.result.evaluation.model

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of evaluation.json."""
        return self.result.measures

    def measures(self, method: str = MODEL) -> Mapping[str, Any]:
        """The measures of the model or of a baseline, by name; empty if it was not measured."""
        found = self.record if method == MODEL else self.record.get("baselines", {})
        return found.get(method, {})

    @property
    def subjects(self) -> int:
        """The number of measured subjects, with each mesh of no known subject as one more."""
        return len(set(self.result.evaluation.groups.tolist()))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the model comes from: its own record, updated with the one in evaluation.json."""
        measured = self.record.get("provenance", {}).get("model") or {}
        return dict(self.model.provenance) | dict(measured)


SectionMaker = Callable[[ReportContext], Section | None]
"""Makes a section, or returns None if the section does not apply to the model. If it raises
InputError, the page shows the message in its place.
"""
