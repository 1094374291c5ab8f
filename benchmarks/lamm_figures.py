"""LAMM's figures on open hands: what corrupting one learned token moves, and single fingers drawn at random.

    python benchmarks/lamm_figures.py RUN --out DIR [--noise 0.5]

RUN is a finished `lamm` (or `lamm-mixer`) run. Writes tokens.png (where the surface moves, one region's token corrupted
in each picture) and regions.png (each region drawn three times on one mesh, heat maps without blend), and prints the
movement inside, in the neighbouring regions, and elsewhere. For the paper's corruption figure train on reconstruction
alone: `--stages autoencode --set model.layers=output`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from morphable.data.dataset import load_dataset
from morphable.edit.region import edit_region
from morphable.mesh.topology import adjacency
from morphable.models.io import load
from morphable.models.lamm import Lamm
from morphable.report.camera import view_for
from morphable.report.render import heat_colours, render
from morphable.report.strips import png, sheet

HEIGHT = 260


def shares(movement: np.ndarray, model: Lamm, region: int) -> str:
    """Mean movement (mm) in the region, in those it touches, and elsewhere."""
    labels = model.regions.labels
    pairs = adjacency(model.template.mesh.faces, len(labels)).tocoo()
    touching = np.unique(labels[pairs.col[(labels[pairs.row] == region)]])
    inside, near = labels == region, np.isin(labels, touching) & (labels != region)
    far = ~inside & ~near
    means = [float(movement[mask].mean()) if mask.any() else 0.0 for mask in (inside, near, far)]
    return "inside {:.3f} mm, neighbours {:.3f} mm, elsewhere {:.3f} mm".format(*means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--noise", type=float, default=0.5)
    options = parser.parse_args()
    model = load(options.run)
    if not isinstance(model, Lamm):
        raise SystemExit(f"{options.run}: expected a lamm run, got {model.family}")
    shape = load_dataset(Path(model.provenance["data"])).part(model.provenance["split"], "test").vertices[0]
    options.out.mkdir(parents=True, exist_ok=True)
    corruption(model, shape, options.noise, options.out / "tokens.png")
    if model.edits_trained:
        fingers(model, shape, options.out / "regions.png")


@torch.no_grad()
def corruption(model: Lamm, shape: np.ndarray, noise: float, path: Path) -> None:
    """Gaussian noise on one learned token at a time."""
    vertices = torch.from_numpy(shape)[None]
    before, learned = model(vertices), model.learned_tokens.clone()
    generator = torch.Generator().manual_seed(0)
    movements = []
    for region, name in enumerate(model.regions.names):
        model.learned_tokens.copy_(learned)
        model.learned_tokens[region] += noise * torch.randn(learned.shape[1], generator=generator)
        movements.append((model(vertices) - before)[0].norm(dim=-1).numpy())
        print(f"token of {name} corrupted: {shares(movements[-1], model, region)}")
    model.learned_tokens.copy_(learned)
    limit = float(np.percentile(np.stack(movements), 99))
    write(model, path, [(shape, movement, limit) for movement in movements], 6)


def fingers(model: Lamm, shape: np.ndarray, path: Path) -> None:
    """Every region drawn three times from the Gaussian of its aligned displacements."""
    cells = []
    for region, name in enumerate(model.regions.names):
        draws = model.handles.sample(region, 3, torch.Generator().manual_seed(1))
        edits = [edit_region(model, shape, name, moved, "none") for moved in draws]
        cells += [(edit.vertices, edit.movement, 10.0) for edit in edits]
        print(f"{name} drawn: {shares(np.mean([edit.movement for edit in edits], axis=0), model, region)}")
    write(model, path, cells, 6)


def write(model: Lamm, path: Path, cells: list[tuple[np.ndarray, np.ndarray, float]], columns: int) -> None:
    camera = view_for(model.template, [vertices for vertices, _, _ in cells])
    triangles = model.template.mesh.triangles
    pictures = [
        render(vertices, triangles, camera, camera.size(HEIGHT), heat_colours(movement, limit))
        for vertices, movement, limit in cells
    ]
    path.write_bytes(png(sheet(pictures, columns)))


if __name__ == "__main__":
    main()
