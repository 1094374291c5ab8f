"""02: a hierarchy and a convolution.

A mesh has no grid of pixels. What takes its place: a hierarchy, coarser and coarser levels of the
template with sparse maps between them, and convolutions along the edges of each level. Everything
that depends on the template alone is computed once, outside the network, and cached.

Ranjan et al., "Generating 3D faces using convolutional mesh autoencoders", ECCV 2018.
"""

from __future__ import annotations

import numpy as np
import torch

import morphable
from morphable.mesh.topology import adjacency
from morphable.ops.chebyshev import ChebyshevConv
from morphable.ops.sparse import SparseMap

hands = morphable.make_source("hands", count=16, seed=0)
shapes = next(iter(hands.blocks()))  # (16, V, 3) mm

# Four levels, each with a quarter of the vertices of the one before. Each keeps a subset of them.
hierarchy = morphable.build_hierarchy(hands.template.mesh, factors=(4, 4, 4))
print(f"vertices per level: {hierarchy.sizes}")

# Down selects vertices, up interpolates. Down after up is the identity.
coarse = hierarchy.down[0] @ shapes[0]
fine = hierarchy.up[0] @ coarse
assert np.allclose(hierarchy.down[0] @ fine, coarse)
error = np.linalg.norm(fine - shapes[0], axis=1)
print(f"down and up again: {error.mean():.2f} mm on average, {error.max():.2f} mm at most")

# A Chebyshev convolution with K terms mixes each vertex with those at most K - 1 edges away.
finest = hierarchy.levels[0]
edges = adjacency(finest.triangles, hierarchy.sizes[0])
convolution = ChebyshevConv(3, 16, edges, terms=3)
x = torch.from_numpy(shapes)  # (B, V, 3)
features = convolution(x)  # (B, V, 16)
print(f"features: {tuple(features.shape)}")

# So one moved vertex changes its two rings, and nothing else.
moved = x.clone()
moved[:, 100] += 1.0
changed = (convolution(moved) - features).abs().amax(dim=(0, 2)) > 0  # (V,)
rings = (edges @ edges + edges)[[100]].toarray()[0] > 0
assert not changed.numpy()[~rings].any()
print(f"one moved vertex changes {int(changed.sum())} of {len(changed)} vertices")

# A network goes down the levels as it goes up in channels.
down = SparseMap(hierarchy.down[0])
print(f"on the next level: {tuple(down(torch.relu(features)).shape)}")
