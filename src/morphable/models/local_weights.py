"""LocalWeights: the locally weighted autoencoder, which finds the parts of a shape by itself and
gives each a code of its own.

Kim and Kim, "Synthesizing human faces using latent space factorization and local weights", arXiv
2107.08737, 2021. The cycle and the partition loss are those of Dubrovina et al., "Composite shape
modeling via latent space factorization", ICCV 2019.

Letters: B batch, V vertices, K parts, Z latent size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from morphable.config import PositiveOrZero, Share
from morphable.mesh.template import Template
from morphable.models.autoencoder import map_snapshot, with_folded_maps
from morphable.models.base import (
    NO_LABELS,
    NO_ORIGIN,
    Given,
    Labels,
    Origin,
    Shapes,
    TrainableModel,
)
from morphable.models.gates import choose_pair
from morphable.models.level_maps import Maps, build_maps
from morphable.models.linear_start import LinearStart, zero_layers
from morphable.models.mesh_geometry import MeshGeometry
from morphable.models.mesh_network import MeshEncoder, activation, initialize_layers
from morphable.models.normalization import Normalization
from morphable.models.part_decoder import PartDecoder, PartDecoderConfig
from morphable.models.part_weights import factorize, part_weights
from morphable.models.parts import MAX_LATENT, Parts
from morphable.models.training import Batch, Progress


@dataclass(frozen=True)
class LocalWeightsConfig(PartDecoderConfig):
    """The defaults are those of the paper, where it states them.

    projections: whether each part has a projection P_k of its own; without, every part's code is
    z. cycle_weight, cycle_share: the weight of the cycle loss, and the share of each batch that it
    mixes. partition_weight: the weight of the loss that makes the P_k a partition of the identity.
    """

    projections: bool = True
    cycle_weight: PositiveOrZero = 1.0
    cycle_share: Share = 1.0
    partition_weight: PositiveOrZero = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.parts * self.latent
        if size > MAX_LATENT:
            raise self.error(
                "parts",
                f"expected {self.parts} parts of latent size {self.latent} to make a code of at "
                f"most {MAX_LATENT:,} numbers, got {size:,}",
            )
        if self.start == "linear" and self.reading != "output":
            raise self.error(
                "start",
                "linear needs model.reading=output, the reading that makes a shape of each part, "
                f"got {self.reading}",
            )


class LocalWeights(TrainableModel):
    """code = (P_1 z, ..., P_K z) with z = Linear(MeshEncoder(normalized shape)), and the normalized
    shape = PartDecoder(code, w), where w_k(v) is how much vertex v belongs to part k.

    loss = |shape - decoded| + cycle, where the cycle exchanges each part's codes between the meshes
    of a batch, decodes and encodes the mixed shapes, exchanges the parts back, and compares what
    that decodes to with the original shapes.

    Parts of the code: `0` to `K-1`, each of size Z. The latent size is Z, since all parts come from
    one z.

    linear: PCA beside the networks that make z and the shapes of parts if the model starts linear;
    otherwise None. Parts that all have the code z, as before training, then make PCA.
    """

    geometry: MeshGeometry
    geometry_type = MeshGeometry
    parts_from_data = True

    def __init__(
        self,
        template: Template,
        config: LocalWeightsConfig,
        geometry: MeshGeometry,
        origin: Origin = NO_ORIGIN,
    ) -> None:
        sizes = {str(part): config.latent for part in range(config.parts)}
        super().__init__(template, Parts.of(**sizes), config, geometry, origin)
        self.normalization = Normalization(template.n_vertices, config.normalization == "vertex")
        self.activation = activation(config) if config.bottleneck_activation else nn.Identity()

        maps = build_maps(geometry, config.channels, config)
        self.encoder = MeshEncoder(geometry, config, maps.down)
        self.to_code = nn.Linear(self.encoder.shape[0] * self.encoder.shape[1], config.latent)
        self.decoder = PartDecoder(geometry, config, maps.up)
        layers = [*self.encoder.layers, self.to_code, *self.decoder.layers]
        initialize_layers(layers, config.initialization)

        if config.projections:
            self.to_parts = nn.Linear(config.latent, config.parts * config.latent, bias=False)
            # All parts start as z itself: then the model starts as an autoencoder.
            nn.init.zeros_(self.to_parts.weight)
            with torch.no_grad():
                self.projections().diagonal(dim1=1, dim2=2).fill_(1.0)

        self.linear = None
        if config.start == "linear":
            self.linear = LinearStart(config.latent, template.n_vertices)
            zero_layers([self.to_code])

        self.factorization_error = nn.Buffer(torch.zeros(()))
        self.dead_parts = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.restarted_parts = nn.Buffer(torch.zeros((), dtype=torch.long))

    @property
    def starts_linear(self) -> bool:
        return self.linear is not None

    @property
    def latent(self) -> int:
        """Z, the size of the code from which all parts come."""
        return int(self.config.latent)

    @property
    def weights(self) -> np.ndarray:
        """(V, K) weights of the parts, from 0 to 1, whose rows sum to one."""
        return np.asarray(self.decoder.weights.cpu().numpy())

    def projections(self) -> Tensor:
        """(K, Z, Z) the matrices P_k."""
        return self.to_parts.weight.unflatten(0, (-1, self.latent))

    def initialize(self, shapes: Shapes, labels: Labels = NO_LABELS) -> None:
        """Compute the normalization and the parts' weights from shapes (N, V, 3) mm."""
        self.normalization.initialize(shapes)
        if self.linear is not None:
            self.linear.initialize(shapes)
        result = factorize(shapes, self.config)
        weights = part_weights(result, self.template.mesh.vertices, self.config.sharpness)
        self.decoder.weights.copy_(torch.from_numpy(weights))
        self.factorization_error.fill_(result.error)
        self.dead_parts.fill_(result.dead)
        self.restarted_parts.fill_(result.restarts)

    def encode(self, vertices: Tensor, given: Given | None = None) -> Tensor:
        return self.split(self.encoding(vertices)).flatten(1)

    def encoding(self, vertices: Tensor) -> Tensor:
        """(B, V, 3) mm -> (B, Z) the codes z before they are split into parts."""
        self.check_vertices(vertices)
        return self._encoding(self.normalization(vertices))

    def split(self, encoding: Tensor) -> Tensor:
        """(B, Z) -> (B, K, Z) the codes of the parts, P_k z."""
        count = int(self.config.parts)
        if not self.config.projections:
            return encoding[:, None].expand(-1, count, -1)
        parts: Tensor = self.to_parts(encoding)
        return parts.unflatten(1, (count, -1))

    def encoding_of(self, code: Tensor) -> Tensor:
        """(B, L) -> (B, Z) the code z from which parts were made, by least squares: exactly z for
        what `encode` returns.
        """
        self.check_code(code)
        if not self.config.projections:
            return code[:, : self.latent]
        return code @ torch.linalg.pinv(self.to_parts.weight).T

    def decode(self, code: Tensor) -> Tensor:
        self.check_code(code)
        parts = code.unflatten(1, (int(self.config.parts), -1))
        return self.normalization.inverse(self.decoder.blend(self._decode_parts(parts)))

    def _decode_parts(self, parts: Tensor) -> Tensor:
        """(B, K, Z) -> (B, K, ...), as `PartDecoder.decode_parts`."""
        decoded = self.decoder.decode_parts(parts)
        if self.linear is None:
            return decoded
        return self.linear.mixed(self.linear.offsets_of(parts) / self.normalization.std, decoded)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        if self.linear is not None:
            self.linear.train_decoder()
        shapes = self.normalization(batch.vertices)
        decoded = self._decode_parts(self.split(self._encoding(shapes)))
        terms = {self.config.loss: self._distance(self.decoder.blend(decoded), shapes)}

        if self.config.cycle_weight:
            count = max(2, round(self.config.cycle_share * len(shapes)))
            cycle = self._cycle(decoded[:count], shapes[:count], progress.generator)
            terms["cycle"] = self.config.cycle_weight * cycle
        if self.config.partition_weight and self.config.projections:
            terms["partition"] = self.config.partition_weight * partition_loss(self.projections())
        return terms

    def _cycle(self, decoded: Tensor, shapes: Tensor, generator: torch.Generator) -> Tensor:
        """Mix parts (B, K, ...) between meshes, encode, mix back, decode, and compare with the
        original shapes (B, V, 3).
        """
        order = torch.stack(
            [torch.randperm(len(decoded), generator=generator) for _ in range(decoded.shape[1])], 1
        ).to(decoded.device)
        # The loss has decoded each part already, and which mesh it comes from does not matter.
        mixed = self.split(self._encoding(self.decoder.blend(exchange(decoded, order))))
        restored = exchange(mixed, order.argsort(0))
        return self._distance(self.decoder.blend(self._decode_parts(restored)), shapes)

    def _encoding(self, normalized: Tensor) -> Tensor:
        added = self.to_code(self.encoder(normalized).flatten(1))
        if self.linear is None:
            return self.activation(added)
        # Without the activation, as in HierarchicalAutoencoder.
        return self.linear.code_of(self.normalization.inverse(normalized), added)

    def _distance(self, decoded: Tensor, shapes: Tensor) -> Tensor:
        difference = decoded - shapes
        if self.config.loss == "l1":
            return difference.abs().mean()
        return (difference * self.normalization.std).norm(dim=-1).mean()

    def finish(self, validation: Batch) -> None:
        linear = self.linear
        if linear is None:
            return
        mean, std = self.normalization.mean, self.normalization.std

        def encoder(x: Tensor) -> tuple[Tensor, Tensor]:
            features = self.encoder(self.normalization(x))
            return linear.basis.code_of(x), self.to_code(features.flatten(1))

        def decoder(encoding: Tensor) -> tuple[Tensor, Tensor]:
            parts, blend = self.split(encoding), self.decoder.blend
            offsets = blend(linear.offsets_of(parts))
            return mean + offsets, blend(self.decoder.decode_parts(parts)) * std - offsets

        choose_pair(linear.encoder_gate, linear.decoder_gate, validation.vertices, encoder, decoder)

    def for_inference(self) -> LocalWeights:
        """Return the same model with constant maps in place of learned ones."""
        return with_folded_maps(self, self._maps())

    def snapshot(self) -> dict[str, np.ndarray]:
        """The learned map up to the finest level, as a `HierarchicalAutoencoder`'s."""
        return map_snapshot(next(iter(self._maps().up), None))

    def _maps(self) -> Maps:
        up = nn.ModuleList() if self.config.reading == "outer" else self.decoder.decoder.maps
        return Maps(self.encoder.maps, up)


def exchange(parts: Tensor, order: Tensor) -> Tensor:
    """Exchange parts between meshes: part k of mesh b becomes that of mesh `order[b, k]`.

    parts: (B, K, ...). order: (B, K), in each column a permutation; `order.argsort(0)` undoes it.
    """
    columns = zip(parts.unbind(1), order.unbind(1), strict=True)
    return torch.stack([part.index_select(0, rows) for part, rows in columns], 1)


def partition_loss(projections: Tensor) -> Tensor:
    """sum_k |P_k P_k - P_k|^2 + sum_{i != j} |P_i P_j|^2 + |sum_k P_k - I|^2 for (K, Z, Z): zero if
    the P_k are projections onto complementary subspaces.
    """
    products = torch.einsum("iab,jbc->ijac", projections, projections)
    # The products should be P_k for i = j, and zero otherwise.
    wanted = torch.diag_embed(projections.movedim(0, -1)).movedim((-2, -1), (0, 1))
    identity = torch.eye(projections.shape[1]).to(projections)
    total = projections.sum(0) - identity
    return (products - wanted).square().sum() + total.square().sum()
