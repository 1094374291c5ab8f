"""The evaluation of a run on disk: evaluation.json holds the measures, evaluation.npz the codes and
errors that they are computed from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from morphable.evaluate.referee import REAL, verdict_measures
from morphable.files import content_hash, read_json, read_npz, write_json, write_npz
from morphable.mesh.stored_arrays import Arrays, stored_numbers, stored_text
from morphable.models.base import MorphableModel
from morphable.models.pca import Pca, PcaConfig

JSON, ARRAYS = "evaluation.json", "evaluation.npz"
MEASURES_HASH = "measures_hash"
"""The array with the hash of evaluation.json: a report takes its numbers as they are."""
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

    def judged(self, verdict: Mapping[str, Any]) -> Measured:
        """The evaluation with the measures of a referee's verdict, with those of real meshes as one
        more baseline, and with how right its embeddings are and its settings as `referee`.
        """
        own, real = verdict_measures(verdict)
        beside = {name: verdict[name] for name in ("collapsed", "judges", "provenance")}
        measures = {
            **self.measures,
            "model": self.measures["model"] | own,
            "baselines": self.measures["baselines"] | {REAL: real},
            "referee": beside,
        }
        return replace(self, measures=measures)

    def write(self, folder: Path | str) -> None:
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
            MEASURES_HASH: np.array(content_hash(json.dumps(self.measures))),
        }
        write_npz(Path(folder) / ARRAYS, arrays)
        write_json(Path(folder) / JSON, self.measures)

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
        try:
            if data.split.hash != record["split_hash"]:
                raise InputError("is of another split")
            if stored_text(arrays, MEASURES_HASH) != content_hash(json.dumps(measures)):
                raise InputError(f"does not belong to {JSON}, which was changed by hand")
            evaluation = _evaluation(arrays, measures, model, data)
        except InputError as error:
            raise InputError(f"{folder / ARRAYS}: {error}; {again}") from error
        return cls(evaluation, measures)


def _evaluation(
    arrays: Arrays, measures: Mapping[str, Any], model: MorphableModel, data: SplitDataset
) -> Evaluation:
    """The evaluation in evaluation.npz. Raises InputError if an array is missing or wrong."""
    subset = str(measures["provenance"]["part"])
    count, coordinates = len(data.split.subset(subset)), 3 * model.template.n_vertices
    deviations = stored_numbers(arrays, "pca/deviations", (None,))
    basis = {
        "mean": stored_numbers(arrays, "pca/mean", (coordinates,)),
        "components": stored_numbers(arrays, "pca/components", (len(deviations), coordinates)),
        "deviations": deviations,
    }
    pca = Pca(model.template, PcaConfig(len(deviations)))
    for name, array in basis.items():
        pca.basis.get_buffer(name).copy_(_tensor(array))
    return Evaluation(
        model,
        data,
        subset,
        _tensor(stored_numbers(arrays, "codes", (count, model.parts.size))),
        pca.eval(),
        _tensor(stored_numbers(arrays, "pca_codes", (count, len(deviations)))),
        {int(size): float(error) for size, error in measures["pca_curve"].items()},
        {name: stored_numbers(arrays, f"mesh_errors/{name}", (count,)) for name in METHODS},
        Conditions.of(model, data.whole),
    )


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


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
