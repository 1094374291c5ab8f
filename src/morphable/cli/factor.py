"""`morphable factor`: make the last layer of a trained LAMM smaller."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from morphable.cli.arguments import Model, ModelData, OutModel
from morphable.errors import InputError
from morphable.rows import evenly_spread

MAX_MESHES = 500
"""Training meshes that the factors are fitted to, evenly spread."""


def factor(
    model: Model,
    /,
    *,
    rank: Annotated[int, Parameter(help="rank of each region's last layer")],
    out: OutModel,
    data: ModelData = None,
) -> None:
    """Factor the last layer of a LAMM, its inverse tokenizer, to a lower rank. The factors are
    fitted to training meshes, and the model gets smaller and faster.

    Prints the mean vertex error on test meshes before and after.
    """
    import torch

    from morphable.evaluate.errors import mean_vertex_error
    from morphable.evaluate.protocol import open_dataset, trained_split
    from morphable.models.io import load, save
    from morphable.models.lamm import Lamm
    from morphable.models.lamm_factor import factor as factored

    loaded = load(model)
    if not isinstance(loaded, Lamm):
        raise InputError(
            f"{model}: {loaded.family} has no inverse tokenizer to factor; "
            "lamm and lamm-mixer have one"
        )
    dataset = open_dataset(loaded, data)
    data_split = dataset.split(trained_split(loaded))
    train, test = data_split.train, data_split.test
    rows = evenly_spread(len(train), MAX_MESHES)
    thin = factored(loaded, rank, torch.from_numpy(train.vertices[rows]))
    save(thin, out)
    sizes, errors = [], []
    for made in (loaded, thin):
        sizes.append(
            sum(parameter.numel() for parameter in made.network.inverse_tokenizer.parameters())
        )
        errors.append(mean_vertex_error(made, test.vertices))
    print(
        f"{out}: inverse tokenizer of {sizes[1]:,} parameters instead of {sizes[0]:,}; "
        f"mean error on {len(test)} test meshes {errors[1]:.3f} mm instead of {errors[0]:.3f} mm"
    )
