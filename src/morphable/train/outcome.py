"""What to say about a training that has ended: which epoch is kept, and whether it learned
anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morphable.data.dataset import SplitDataset
from morphable.evaluate.errors import little_learned
from morphable.models.base import blocks
from morphable.models.normalization import moments


def kept_epoch(provenance: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> str:
    """Say which epoch's weights a model has and why; "" if that is not recorded.

    metrics: the rows of metrics.jsonl of its run.
    """
    epoch = provenance.get("kept_epoch")
    if epoch is None:
        return ""
    stage = metrics[-1].get("stage", "") if metrics else ""
    # Epochs are recorded over the whole run, but a reader set how many each stage has.
    before = sum(row.get("stage", "") != stage for row in metrics)
    if before:
        epoch = f"{epoch - before} of {stage}"
    if not any(row.get("validation_mm") is not None for row in metrics):
        return f"The family has no validation; the last epoch, {epoch}, is kept."
    settings = provenance.get("train", {})
    if settings.get(stage, {}).get("keep", settings.get("keep")) == "last":
        return f"The last epoch, {epoch}, is kept."
    if epoch == 0:
        start, enough = (metrics[0].get(f"{name}_mm", 0.0) for name in ("start", "enough"))
        gain = f" by {100 * (1 - enough / start):.2g} %" if enough < start else ""
        return (
            f"No epoch was better on the validation meshes{gain} than the linear model that training "
            "started from, so that is kept."
        )
    return f"Epoch {epoch} is kept, the best on the validation meshes."


def transported_note(provenance: Mapping[str, Any]) -> str:
    """Say how many meshes were made by transport, and how long that took; "" if none were."""
    made = provenance.get("transported")
    if not made:
        return ""
    share = provenance.get("train", {}).get("transport", 0)
    return (
        f"{100 * share:g} % of the meshes of an epoch are mixtures of training people with the "
        f"expression or pose of a third; {made['meshes']:,} were made by {made['method']} in "
        f"{made['seconds']:.1f} s."
    )


def little_gained(
    provenance: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], data: SplitDataset
) -> str:
    """Say that the kept weights hardly reconstruct the validation meshes better than the mean of
    the training meshes does; "" if they do, or if that was not measured.
    """
    epoch = provenance.get("kept_epoch")
    errors = [row.get("validation_mm") for row in metrics if row["epoch"] == epoch]
    if not errors or errors[0] is None:
        return ""
    mean = moments(data.train.vertices)[0]
    distances = [
        np.linalg.norm(block - mean, axis=-1).mean(1) for block in blocks(data.val.vertices)
    ]
    return little_learned(errors[0], float(np.concatenate(distances).mean()), "validation")
