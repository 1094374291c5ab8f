"""00: a mesh and a template.

A mesh is vertices and faces, a value that never changes. A template is what all meshes of a class
share: the faces, and what is known of each vertex, such as its region. Vertex i is the same point
of the body in every mesh of the class, so nothing ever merges, drops or reorders vertices.
"""

from __future__ import annotations

import numpy as np

import morphable

# A source makes or reads registered meshes. This one poses a hand rig that is in the package.
hands = morphable.make_source("hands", count=4, seed=0)
template = hands.template
print(f"{template.name}: {template.n_vertices} vertices, {len(template.mesh.faces)} faces")
if template.regions is not None:
    print(f"regions: {', '.join(template.regions.names)}")
print(f"fingerprint of the faces: {template.fingerprint}")

# Four shapes of this class, (4, V, 3) mm. The first one is a person's hand in the rest pose.
shapes = next(iter(hands.blocks()))
rest, grasp = (template.mesh.moved(vertices) for vertices in shapes[:2])
thumb = template.region("thumb")
moved = np.linalg.norm(grasp.vertices - rest.vertices, axis=1)
print(f"from rest to grasp the thumb moves by {moved[thumb].mean():.1f} mm on average")

# Files keep every vertex in its place, and quads stay quads.
morphable.write_mesh("grasp.ply", grasp)
again = morphable.read_mesh("grasp.ply").mesh
assert np.array_equal(again.faces, grasp.faces)
assert np.array_equal(again.vertices, grasp.vertices.astype(np.float32))

# Wrong input is an InputError, and its message says what was expected.
try:
    template.mesh.moved(shapes[0][:100])
except morphable.InputError as error:
    print(f"refused: {error}")
