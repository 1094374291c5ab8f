"""04: codes: interpolate, transfer, swap, sample, condition.

Every model has one flat code with named parts, so arithmetic on codes works for every family. Here
the parts are `identity` (who it is) and `expression` (the pose of the hand, as for faces).

Needs data/hands of 01_dataset.py.
"""

from __future__ import annotations

from pathlib import Path

import torch

import morphable
from morphable.edit.code import interpolate, swap, transfer

data = morphable.load_dataset("data/hands").split("subject")
folder = Path("runs/two-space")
if not folder.exists():
    sizes = {"identity": 6, "expression": 6}
    morphable.train_model("linear-two-space", data=data, folder=folder, latent=sizes)
model = morphable.load(folder)
parts = model.parts
print(f"code of {parts.size}: {', '.join(f'{name} {parts[name]}' for name in parts)}")

# Two people in different poses, and the code of each. (2, V, 3) mm -> (2, L)
shapes = torch.from_numpy(data.test.vertices[[1, 8]])
print(f"A is {data.test.labels['subject'][1]}, B is {data.test.labels['subject'][8]}")
a, b = model.encode(shapes)

# Interpolation moves along a line of codes; t below 0 or above 1 exaggerates.
between = model.decode(interpolate(parts, a, b, torch.linspace(0, 1, 5)))  # (5, V, 3) mm
print(f"between A and B: {tuple(between.shape)}")

# A swap takes parts from another code: the person of A in the pose of B.
swapped = model.decode(swap(parts, a, b, ["expression"])[None])[0]
print(f"A in the pose of B differs from A by {(swapped - shapes[0]).norm(dim=-1).mean():.1f} mm")

# Transfer applies a change to somebody else: what leads from A's rest pose to A, applied to B's.
rest_a, rest_b = (model.encode(model.neutral(code[None]))[0] for code in (a, b))
moved = model.decode(transfer(parts, rest_a, a, rest_b)[None])
print(f"B in the pose of A: {tuple(moved.shape)}")

# The prior is a Gaussian over codes. Given a part, it is conditioned on that part: the same person
# in random poses.
generator = torch.Generator().manual_seed(0)
anyone = model.sample(100, generator)
one_person = model.sample(100, generator, given={"identity": a[parts["identity"]]})
spread = [drawn.std(0).norm(dim=-1).mean() for drawn in (anyone, one_person)]
print(f"random hands vary by {spread[0]:.1f} mm, those of one person by {spread[1]:.1f} mm")

# A shape is written with the faces of the template.
mesh = model.template.mesh.moved(swapped.detach().numpy())
morphable.write_mesh("a-as-b.ply", mesh)
