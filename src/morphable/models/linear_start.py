"""LinearStart: PCA beside the networks of an autoencoder, so that the untrained model is PCA and
the networks learn what is not linear.

    code  = P x + a f(x)                      P x: the coefficients of PCA, in standard deviations
    shape = (1 - b) S code + b g(code)        S: the synthesis of PCA

The last layer of the network f is zero before training. P and S are not trained. The gate b is 0
before training, so that epoch 0 is PCA whatever g is, and 1 in training: a decoder that starts as
an addition to S code learns more slowly than one that learns the whole shape from these codes,
since S ties each number of the code to its component. After training, both gates are chosen on the
validation meshes (`gates.py`); closed gates, a = b = 0, are PCA.

LAMM's decoder adds to PCA instead (`lamm.py`): there g(code) includes S code.

Letters: B batch, V vertices, L size of the code.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from morphable.models.base import Shapes
from morphable.models.linear_basis import LinearBasis
from morphable.models.principal_basis import principal_basis


class LinearStart(nn.Module):
    """The projection P and synthesis S of PCA with L components, and the gates a and b.

    Components beyond those of the training meshes are zero: the networks alone use that part of the
    code.
    """

    def __init__(self, size: int, n_vertices: int) -> None:
        super().__init__()
        self.basis = LinearBasis(size, n_vertices)
        self.encoder_gate = nn.Buffer(torch.ones(()))
        self.decoder_gate = nn.Buffer(torch.zeros(()))

    def initialize(self, shapes: Shapes) -> None:
        """Compute the principal components of shapes (N, V, 3) mm."""
        self.basis.set(principal_basis(shapes, len(self.basis.components)))

    def code_of(self, vertices: Tensor, added: Tensor) -> Tensor:
        """(B, V, 3) mm and what the network adds, (B, L) -> (B, L) codes."""
        return self.basis.code_of(vertices) + self.encoder_gate * added

    def mixed(self, offsets: Tensor, decoded: Tensor) -> Tensor:
        """The shapes of PCA and those of the network, of equal shape, mixed by the decoder's gate."""
        return offsets + self.decoder_gate * (decoded - offsets)

    def train_decoder(self) -> None:
        """Open the decoder's gate, which is closed before training."""
        self.decoder_gate.fill_(1.0)

    def offsets_of(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, V, 3) mm: the shapes of PCA, relative to the mean shape."""
        scaled = code * self.basis.deviations
        return (scaled @ self.basis.components).unflatten(-1, (-1, 3))

    def offsets_at(self, code: Tensor, members: Tensor) -> Tensor:
        """(B, L) -> (B, m, 3) mm: the same, at m vertices only."""
        components = self.basis.components.unflatten(1, (-1, 3))[:, members]
        return torch.einsum("bl,lmc->bmc", code * self.basis.deviations, components)


@torch.no_grad()
def zero_layers(layers: Iterable[nn.Module]) -> None:
    """Set weights and biases of layers to zero."""
    for layer in layers:
        for parameter in layer.parameters():
            parameter.zero_()
