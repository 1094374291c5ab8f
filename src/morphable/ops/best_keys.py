"""Find the k keys of largest inner product with each query: exactly, in blocks of rows, without
gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from morphable.ops.gather import being_transformed

BLOCK_SCORES, DEVICE_BLOCK_SCORES = 1 << 19, 1 << 26
"""Number of scores held at once during a selection: 2 MiB on a CPU, which stay in its cache, and
256 MiB on a GPU.
"""
BLOCKS_UNCHECKED = 8
"""After a block in which most rows changed, the next BLOCKS_UNCHECKED - 1 blocks are selected
without first checking whether their rows changed.
"""
GROUP, GROUPED_ABOVE = 8, 256
"""Rows of at least GROUPED_ABOVE * k scores are first reduced to the maxima of groups of GROUP."""


class BestKeys(nn.Module):
    """The k best keys of each query, selected no more often than needed.

    In training, a selection is used for `refresh` steps; if `refresh` is 1, it is always exact. It
    is part of the state, so that a resumed run continues with the same one. In evaluation, the
    selection is always exact; it is remembered until queries or keys change.
    """

    def __init__(self, n_queries: int, n_keys: int, k: int, refresh: int) -> None:
        super().__init__()
        self.n_keys, self.k, self.refresh = n_keys, k, refresh
        self.selected = nn.Buffer(torch.arange(k).repeat(n_queries, 1))
        self.age = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self._remembered: tuple[Tensor, Tensor, Tensor] | None = None
        self.register_load_state_dict_post_hook(_check_selected)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(n_queries, C), (n_keys, C) -> (n_queries, k) int64."""
        if self.k == self.n_keys:
            return self.selected
        if not self.training and being_transformed():
            return (queries @ keys.T).topk(self.k).indices  # nothing is remembered
        if not self.training:
            return self._exact(queries, keys)
        if int(self.age) % self.refresh == 0:
            self.selected.copy_(select_best(queries, keys, self.k, self.selected))
        self.age.add_(1)
        return self.selected

    def _exact(self, queries: Tensor, keys: Tensor) -> Tensor:
        kept = self._remembered
        if kept is None or not (same(kept[0], queries) and same(kept[1], keys)):
            best = select_best(queries, keys, self.k, self.selected)
            kept = self._remembered = (queries, keys, best)
        return kept[2]


def _check_selected(module: nn.Module, problems: Any) -> None:
    """Raise RuntimeError, as `load_state_dict` does, if the weights of a file select keys that do
    not exist.
    """
    assert isinstance(module, BestKeys)
    if ((module.selected < 0) | (module.selected >= module.n_keys)).any():
        raise RuntimeError(f"selected: expected keys from 0 to {module.n_keys - 1}")


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal and on one device."""
    return a.device == b.device and torch.equal(a, b)


@torch.no_grad()
def select_best(queries: Tensor, keys: Tensor, k: int, before: Tensor | None = None) -> Tensor:
    """Select for each query (n_out, C) the k keys (n_in, C) of largest inner product: (n_out, k)
    int64.

    before: any k distinct keys of each query, ideally an earlier selection, which makes this one
    cheaper and no less exact. The smallest of their present scores is a lower bound of the k-th
    best score, so a row in which no other score exceeds it keeps its selection. After a block in
    which most rows changed, the next few blocks are selected without that check.
    """
    step = max(1, (BLOCK_SCORES if keys.device.type == "cpu" else DEVICE_BLOCK_SCORES) // len(keys))
    if before is None:
        return torch.cat([_largest(part @ keys.T, k) for part in queries.split(step)])
    blocks: list[Tensor] = []
    checked_from = 0  # the first block for which checking is likely to save time
    for number, (part, kept) in enumerate(
        zip(queries.split(step), before.split(step), strict=True)
    ):
        scores = part @ keys.T
        if number < checked_from:
            blocks.append(_largest(scores, k))
            continue
        present = scores.gather(1, kept)
        others = scores.scatter_(1, kept, -torch.inf).amax(1)
        changed = (others > present.amin(1)).nonzero()[:, 0]
        if 2 * len(changed) > len(part):
            kept = _largest(scores.scatter_(1, kept, present), k)
            checked_from = number + BLOCKS_UNCHECKED
        elif len(changed):
            best = _largest(scores[changed].scatter_(1, kept[changed], present[changed]), k)
            kept = kept.index_copy(0, changed, best)
        blocks.append(kept)
    return torch.cat(blocks)


def _largest(scores: Tensor, k: int) -> Tensor:
    """(n, k) columns of the k largest scores of each row (n, m), in any order."""
    m = scores.shape[1]
    if m < GROUPED_ABOVE * k:
        return _partitioned(scores, k)
    # The k largest scores lie in the k groups of largest maximum. Group j consists of the columns
    # j, j + groups, j + 2 groups, ...
    groups = -(-m // GROUP)
    maxima = scores[:, :groups].clone()
    for start in range(groups, m, groups):
        others = scores[:, start : start + groups]
        maxima[:, : others.shape[1]] = torch.maximum(maxima[:, : others.shape[1]], others)
    members = torch.arange(GROUP, device=scores.device) * groups
    columns = (_partitioned(maxima, k)[:, :, None] + members).flatten(1)
    candidates = scores.gather(1, columns.clamp(max=m - 1)).masked_fill_(columns >= m, -torch.inf)
    return columns.gather(1, _partitioned(candidates, k))


def _partitioned(scores: Tensor, k: int) -> Tensor:
    if scores.device.type != "cpu" or k < 8 or torch.get_num_threads() > 4:
        return torch.topk(scores, k, dim=1, sorted=False).indices
    # On one thread, numpy's vectorized partition is as fast as topk on four, unless k is small.
    cut = scores.shape[1] - k
    return torch.from_numpy(np.argpartition(scores.numpy(), cut, axis=1)[:, cut:].copy())
