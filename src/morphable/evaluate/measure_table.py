"""The table of measures: the title and meaning of each measure in evaluation.json or in a
benchmark, and which values are better. Report, benchmark and command line all read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from morphable.errors import InputError

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    name: the key in evaluation.json or results.json. unit: written after the value, "" if it has
    none. better: which values are better; "neither" if the measure only describes, so no table
    marks a winner. digits: decimals in a table of several models.
    """

    name: str
    title: str
    meaning: str
    unit: str = ""
    better: Better = "lower"
    digits: int = 3

    @property
    def described(self) -> str:
        """The meaning, and which values are better."""
        return self.meaning + ("" if self.better == "neither" else f"; {self.better} is better")


_ROWS = (
    # Reconstruction, for every model.
    Measure(
        "vertex_error_mm",
        "vertex error",
        "distance between reconstructed and true vertices, pooled over all meshes and vertices",
        "mm",
    ),
    Measure(
        "searched_vertex_error_mm",
        "vertex error, conditions searched",
        "the vertex error if the model chooses each mesh's condition by least error, instead of "
        "taking it from the labels; PCA beside it has as many more numbers as are searched",
        "mm",
    ),
    Measure("mesh_error_mm", "mesh error", "the mean vertex error of each mesh, over meshes", "mm"),
    Measure(
        "surface_distance_mm",
        "surface distance",
        "mean distance to the nearest point of the other surface, in both directions",
        "mm",
    ),
    Measure(
        "self_intersections",
        "self-intersecting faces",
        "faces per reconstruction that cross others, minus those of the true mesh",
        "faces per mesh",
        # Fewer is not better: a shape that is too smooth has fewer crossings than the true mesh.
        "neither",
        1,
    ),
    Measure(
        "self_intersections_of_truth",
        "self-intersecting faces of the true meshes",
        "faces per true mesh that cross others",
        "faces per mesh",
        "neither",
        1,
    ),
    # The prior, for models that can be sampled.
    Measure(
        "specificity_mm",
        "specificity",
        "mean vertex distance of a random sample to the nearest training mesh",
        "mm",
    ),
    Measure(
        "compactness",
        "compactness",
        "share of the measured meshes' variance kept by the first directions of the prior",
        "",
        "higher",
    ),
    Measure(
        "anchor_error_mm",
        "error from known vertices",
        "vertex error of a whole mesh that is fitted to so many known vertices, given its pose",
        "mm",
    ),
    # Points in any order, for models that encode them.
    Measure(
        "scan_error_mm",
        "error from scans",
        "vertex error of meshes that are encoded from a quarter of their vertices, in any order and "
        "with 1 mm of noise, of at most 100 meshes",
        "mm",
    ),
    # Identity and expression, for models with an identity part.
    Measure(
        "disentanglement_error_mm",
        "disentanglement error",
        "how unevenly far a subject's predicted neutral shapes lie from their mean (Sun et al.)",
        "mm",
        digits=4,
    ),
    Measure(
        "disentanglement_error_rms_mm",
        "disentanglement error, root mean square",
        "root mean square distance of a subject's predicted neutral shapes to their mean, after "
        "rigid alignment (Jiang et al.)",
        "mm",
        digits=4,
    ),
    Measure(
        "neutral_error_mm",
        "neutral error",
        "distance between the neutral shape predicted from the identity part and the true one",
        "mm",
    ),
    Measure(
        "swap_error_mm",
        "swap error",
        "one mesh's identity with another's expression: distance to the true shape",
        "mm",
    ),
    Measure(
        "swap_cost_mm",
        "swap minus reconstruction",
        "swap error minus the mean vertex error of the two meshes whose codes are combined; near "
        "zero if identity and expression are apart",
        "mm",
    ),
    Measure(
        "expression_kept",
        "expression kept",
        "share of the variance within each subject that reconstructions keep; 1 = all of it",
        "",
        "higher",
        2,
    ),
    Measure(
        "identity_leakage",
        "identity leakage",
        "share of meshes whose subject a linear probe guesses from the rest of the code",
        "",
        digits=2,
    ),
    Measure(
        "identity_leakage_nonlinear",
        "identity leakage, nonlinear probe",
        "the same for a support vector machine with a Gaussian kernel",
        "",
        digits=2,
    ),
    Measure(
        "identity_leakage_chance",
        "identity leakage by chance",
        "the same for always guessing the most frequent subject",
        "",
        "neither",
        2,
    ),
    Measure(
        "expression_leakage",
        "expression leakage",
        "share of meshes whose expression a linear probe guesses from the identity part",
        "",
        digits=2,
    ),
    Measure(
        "expression_leakage_nonlinear",
        "expression leakage, nonlinear probe",
        "the same for a support vector machine with a Gaussian kernel",
        "",
        digits=2,
    ),
    Measure(
        "expression_leakage_chance",
        "expression leakage by chance",
        "the same for always guessing the most frequent expression",
        "",
        "neither",
        2,
    ),
    Measure(
        "collapsed",
        "collapsed dimensions",
        "latent dimensions of a part whose code hardly varies over the measured meshes",
        "",
        digits=0,
    ),
    # Editing, for models with handles.
    Measure(
        "control_error_mm",
        "error at the handles",
        "distance to the target at the control vertices, after all of them were moved there",
        "mm",
    ),
    Measure(
        "other_error_mm",
        "error elsewhere",
        "distance to the target at all other vertices after that edit",
        "mm",
    ),
    Measure(
        "control_moved_mm",
        "movement at the handles",
        "how far apart the two meshes are at the control vertices: what the edit has to cover",
        "mm",
        "neither",
    ),
    Measure(
        "other_moved_mm",
        "movement elsewhere",
        "how far apart the two meshes are at all other vertices",
        "mm",
        "neither",
    ),
    Measure(
        "locality",
        "locality",
        "movement outside an edited region as a share of that inside; 0 = perfectly local",
    ),
    # Parts that a model found by itself.
    Measure(
        "part_locality",
        "locality of parts",
        "movement inside a part divided by that outside it, when its code becomes another mesh's; "
        "vertices are weighted by how much they belong to the part",
        "",
        "higher",
        1,
    ),
    Measure(
        "part_overlap",
        "overlap of parts",
        "how much weight two parts share on average; 0 = none, 1 = all",
        "",
        "lower",
        2,
    ),
    Measure("dead_parts", "dead parts", "parts that the factorization left empty", digits=0),
    Measure(
        "synthesis_area",
        "area of syntheses",
        "area of the ellipse of part syntheses in the plane of the training codes' two principal "
        "directions, relative to the training codes'",
        "",
        "neither",
        2,
    ),
    Measure(
        "held_out_area",
        "area of held-out meshes",
        "the same for measured meshes, which no model made",
        "",
        "neither",
        2,
    ),
    Measure(
        "synthesis_spread",
        "spread of syntheses",
        "distance of part syntheses' codes to their mean, relative to the training codes'",
        "",
        "neither",
        2,
    ),
    Measure(
        "held_out_spread",
        "spread of held-out meshes",
        "the same for measured meshes",
        "",
        "neither",
        2,
    ),
    Measure(
        "synthesis_coverage",
        "coverage by syntheses",
        "share of measured meshes that have a part synthesis nearer than their fifth neighbor",
        "",
        "higher",
        2,
    ),
    Measure(
        "training_coverage",
        "coverage by training meshes",
        "the same for as many training meshes",
        "",
        "neither",
        2,
    ),
    Measure(
        "synthesis_novelty",
        "novelty of syntheses",
        "distance of part syntheses' codes to the nearest training code, relative to that of "
        "measured meshes",
        "",
        "neither",
        2,
    ),
    Measure(
        "mixture_area",
        "area of mixtures",
        "area of syntheses, for codes in which every part comes from a measured mesh of its own",
        "",
        "neither",
        2,
    ),
    Measure(
        "mixture_spread",
        "spread of mixtures",
        "the same of their distance to their mean",
        "",
        "neither",
        2,
    ),
    Measure(
        "mixture_coverage",
        "coverage by mixtures",
        "the same share of measured meshes",
        "",
        "higher",
        2,
    ),
    Measure(
        "mixture_novelty",
        "novelty of mixtures",
        "the same relative distance to the nearest training code",
        "",
        "neither",
        2,
    ),
    # What the referee measures of a model that draws shapes, in addition to the specificity.
    Measure(
        "coverage_mm",
        "coverage",
        "distance of a held-out mesh to the nearest of the model's samples",
        "mm",
    ),
    Measure(
        "one_nn_accuracy",
        "1-nearest-neighbor accuracy",
        "how often the nearest neighbor tells samples from held-out meshes; 0.5 is ideal",
        "",
        "neither",
    ),
    Measure(
        "diversity_mm",
        "diversity",
        "distance between two samples: any two, or two that share a part of the code",
        "mm",
        "neither",
        2,
    ),
    Measure(
        "decoupling",
        "decoupling",
        "share of pairs of samples with the same part of the code that embeddings trained on "
        "training meshes judge to be the same person, or the same expression",
        "",
        "higher",
    ),
    Measure(
        "generalization_mm",
        "error of fitted codes",
        "mean vertex error of held-out meshes if codes are fitted to them by descent",
        "mm",
    ),
    # The run and its cost, which a benchmark records in addition to the measures of
    # evaluation.json.
    Measure(
        "parameters", "parameters", "trainable parameters of the saved model", "", "neither", 0
    ),
    Measure(
        "training_parameters",
        "parameters in training",
        "trainable parameters during training, before learned maps become constants",
        "",
        "neither",
        0,
    ),
    Measure("epochs", "epochs", "number of epochs of training", "", "neither", 0),
    Measure("training_seconds", "seconds of training", "duration of training", "s", "neither", 0),
    Measure(
        "seconds_per_epoch", "seconds per epoch", "mean duration of an epoch", "s", "neither", 1
    ),
    Measure(
        "decoder_parameters",
        "decoder parameters",
        "trainable parameters that decoding uses",
        "",
        "neither",
        0,
    ),
    Measure("decode_ms", "decoding on the CPU", "median time to decode one mesh", "ms", digits=1),
    Measure(
        "decode_gpu_ms", "decoding on the GPU", "median time to decode one mesh", "ms", digits=1
    ),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ROWS}
"""The rows of the table by name."""


def measure_of(key: str) -> tuple[Measure, str]:
    """Split a key into its measure and the region or part that it is restricted to.

    `vertex_error_mm/thumb` is the vertex error of "thumb"; the second value is "" if the key names
    no region or part. Raises InputError if the measure is not in the table.
    """
    name, _, place = key.partition("/")
    if name not in MEASURES:
        raise InputError(f"measure {name!r}: not in the table of measures")
    return MEASURES[name], place


def titled(key: str) -> str:
    """The title of a key's measure, with the region or part.

    >>> titled("vertex_error_mm/thumb"), titled("locality")
    ('vertex error, thumb', 'locality')
    """
    measure, place = measure_of(key)
    return f"{measure.title}, {place}" if place else measure.title
