"""Asked against obtained: every handle of a model is moved by 3 mm in a random direction, one at a
time, on test meshes, without a blend.

    python benchmarks/handles.py zoo:hands-lamm --data data/zoo
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import morphable
from morphable.models.handles import RegionEditor

ASKED = 3.0
"""mm"""
MESHES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "model", help="a LAMM or region-PCA: a run folder, a file or one of the zoo"
    )
    parser.add_argument("--data", required=True, help="the dataset whose test meshes are edited")
    arguments = parser.parse_args()
    model = morphable.load(arguments.model)
    if not isinstance(model, RegionEditor):
        parser.error(f"{arguments.model}: a {model.family} has no handles of its own")
    test = morphable.load_dataset(arguments.data).split("subject").test
    moved = moves(model, torch.from_numpy(np.asarray(test.vertices[:MESHES])))
    titles = "along the asked direction", "missed by", "mean of the region", "most outside it"
    for title, values in zip(titles, np.transpose(moved), strict=True):
        print(f"{title}: {values.mean():.2f} mm ({values.min():.2f} to {values.max():.2f})")


@torch.no_grad()
def moves(model: RegionEditor, vertices: torch.Tensor) -> list[tuple[float, float, float, float]]:
    """What each handle gets, in mm: means over the meshes, but for the last."""
    random = np.random.default_rng(0)
    code = model.encode(vertices)
    before = model.decode(code)
    found = []
    for region, controls in enumerate(model.regions.controls):
        inside = torch.from_numpy(model.regions.labels == region)
        for handle in controls:
            direction = random.normal(size=3)
            asked = ASKED * direction / np.linalg.norm(direction)
            all_handles = model.handles.complete(region, {int(handle): asked})
            displacement = model.displacement(region, all_handles.expand(len(code), -1, -1))
            change = model.decode(model.displace(code, displacement)) - before
            wanted = torch.from_numpy(asked).float()
            own, distance = change[:, handle], change.norm(dim=-1)
            found.append(
                (
                    float((own @ wanted).mean() / ASKED),
                    float((own - wanted).norm(dim=-1).mean()),
                    float(distance[:, inside].mean()),
                    float(distance[:, ~inside].max()),
                )
            )
    return found


if __name__ == "__main__":
    main()
