"""The evaluation of a run on disk: evaluation.json holds the measures, evaluation.npz the codes and
errors that they are computed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphable.data.dataset import MeshDataset, SplitDataset
from morphable.errors import InputError
from morphable.evaluate.conditions import Conditions
from morphable.evaluate.evaluation import METHODS, Evaluation
from morphable.evaluate.measures import measure
from morphable.evaluate.protocol import require_template
from morphable.files import read_json, read_npz, write_json, write_npz
from morphable.models.base import MorphableModel
from morphable.models.pca import Pca, PcaConfig

JSON, ARRAYS = "evaluation.json", "evaluation.npz"
TABLES = ("model", "baselines", "provenance")
"""The tables of evaluation.json that must be there."""


@dataclass(frozen=True, eq=False)
class Measured:
    """An evaluation and its measures, which are the content of evaluation.json."""

    evaluation: Evaluation
    measures: Mapping[str, Any]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Measured:
        return cls(evaluation, measure(evaluation))

    def write(self, folder: Path) -> None:
        """Write both files into a run folder."""
        # The arrays first: `read` looks for evaluation.json, so an interrupted write leaves no
        # evaluation.
        evaluation = self.evaluation
        arrays = {f"mesh_errors/{name}": evaluation.mesh_errors[name] for name in METHODS}
        arrays |= {
            "codes": evaluation.codes.cpu().numpy(),
            "pca_codes": evaluation.pca_codes.cpu().numpy(),
            "pca/mean": evaluation.pca.basis.mean.numpy(),
            "pca/components": evaluation.pca.basis.components.numpy(),
            "pca/deviations": evaluation.pca.basis.deviations.numpy(),
        }
        write_npz(folder / ARRAYS, arrays)
        write_json(folder / JSON, self.measures)

    @classmethod
    def read(cls, folder: Path, model: MorphableModel, dataset: MeshDataset) -> Measured | None:
        """Read the evaluation in a run folder; None if there is none.

        Raises InputError if a file is damaged, or if the evaluation belongs to another model or
        dataset.
        """
        if not (folder / JSON).exists():
            return None
        measures = read_json(folder / JSON)
        again = f"make it again with `morphable evaluate {folder}`"
        if not (
            isinstance(measures, dict)
            and all(isinstance(measures.get(key), dict) for key in TABLES)
            and {"split", "part", "split_hash"} <= measures["provenance"].keys()
        ):
            raise InputError(f"{folder / JSON}: not the evaluation of a model; {again}")
        if not (folder / ARRAYS).exists():
            return None
        record = measures["provenance"]
        if record.get("content_hash") != dataset.info["content_hash"]:
            raise InputError(f"{folder / JSON}: is of other meshes or labels; {again}")
        data = dataset.split(str(record["split"]))
        arrays = read_npz(folder / ARRAYS)
        expected = (len(data.split.subset(str(record["part"]))), model.parts.size)
        if data.split.hash != record["split_hash"] or arrays["codes"].shape != expected:
            raise InputError(f"{folder / ARRAYS}: is of another model or split; {again}")
        pca = Pca(model.template, PcaConfig(len(arrays["pca/deviations"])))
        for name in ("mean", "components", "deviations"):
            pca.basis.get_buffer(name).copy_(torch.from_numpy(arrays[f"pca/{name}"]))
        evaluation = Evaluation(
            model,
            data,
            str(record["part"]),
            torch.from_numpy(arrays["codes"]),
            pca.eval(),
            torch.from_numpy(arrays["pca_codes"]),
            {int(size): float(error) for size, error in measures.get("pca_curve", {}).items()},
            {name: np.asarray(arrays[f"mesh_errors/{name}"]) for name in METHODS},
            Conditions.of(model, data.whole),
        )
        return cls(evaluation, measures)


def evaluate_model(model: MorphableModel, *, data: SplitDataset, subset: str = "test") -> Measured:
    """Measure a model and its baselines, as the command `morphable evaluate` does.

    Args:
        model: A trained model.
        data: A dataset on the model's template, divided by one of its splits. The baselines (PCA
            and the mean shape) are fitted to its training subset.
        subset: The subset that is measured: "test", "val" or "train".

    Returns:
        The evaluation and its measures: `measures["model"]["vertex_error_mm"]["mean"]` and more.
    """
    require_template(model, data.whole, str(data.whole.path))
    return Measured.of(Evaluation.of(model, data, subset))
