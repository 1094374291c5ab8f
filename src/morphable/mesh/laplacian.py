"""Laplacians of a mesh: the cotangent Laplacian (Pinkall and Polthier 1993) with its lumped mass
matrix, and the Laplacian of the edge graph.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from morphable.mesh.topology import adjacency


def cotangent_laplacian(vertices: np.ndarray, triangles: np.ndarray) -> sp.csr_matrix:
    """Compute L (V, V) with L_ij = -(cot a + cot b) / 2 for the angles a, b opposite edge ij, and
    rows that sum to zero.

    vertices: (V, 3); triangles: (T, 3). L is positive semidefinite, dimensionless and in double
    precision: x^T L x is the squared length of the gradient of x, integrated over the surface.
    Beware that libigl's `cotmatrix` has the opposite sign. A triangle without area is left out.
    """
    corners = np.asarray(vertices, np.float64)[triangles]
    rows, cols, values = [], [], []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        toward_i, toward_j = corners[:, i] - corners[:, k], corners[:, j] - corners[:, k]
        double_area = np.linalg.norm(np.cross(toward_i, toward_j), axis=1)
        dot = np.einsum("tx,tx->t", toward_i, toward_j)
        half_cot = np.divide(dot, 2 * double_area, out=np.zeros_like(dot), where=double_area > 0)
        rows += [triangles[:, i], triangles[:, j]]
        cols += [triangles[:, j], triangles[:, i]]
        values += [half_cot, half_cot]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols)))
    weights = sp.csr_matrix(entries, shape=(len(vertices), len(vertices)))
    return sp.csr_matrix(sp.diags_array(np.asarray(weights.sum(axis=1)).ravel()) - weights)


def mass_matrix(vertices: np.ndarray, triangles: np.ndarray) -> sp.csr_matrix:
    """Compute the diagonal (V, V) matrix of vertex areas: one third of the area of the triangles
    around each vertex.

    vertices: (V, 3); triangles: (T, 3). Areas have the squared unit of the vertices. A vertex
    without a triangle has mass zero.
    """
    a, b, c = (np.asarray(vertices, np.float64)[triangles[:, k]] for k in range(3))
    third = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    mass = np.bincount(triangles.ravel(), np.repeat(third, 3), minlength=len(vertices))
    return sp.csr_matrix(sp.diags_array(mass))


def graph_laplacian(faces: np.ndarray, n_vertices: int, normalized: bool = True) -> sp.csr_matrix:
    """Compute I - D^-1/2 A D^-1/2 (V, V) of the binary edge graph A with degrees D; D - A if not
    `normalized`.

    faces: (F, K). An edge counts once, however many faces share it. The normalized row of a
    vertex without edges is that of the identity.
    """
    graph = adjacency(faces, n_vertices)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    if not normalized:
        return sp.csr_matrix(sp.diags_array(degree) - graph)
    inverse_root = sp.diags_array(
        np.divide(1, np.sqrt(degree), out=np.zeros(n_vertices), where=degree > 0)
    )
    return sp.csr_matrix(sp.eye_array(n_vertices) - inverse_root @ graph @ inverse_root)
