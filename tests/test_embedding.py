"""Embeddings: the published network, the triplet loss by hand, the rule for thresholds, and that
training separates classes that it never saw.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from morphable.errors import InputError
from morphable.evaluate.embedding import (
    MARGIN,
    Embedding,
    ResNet18,
    Small,
    Threshold,
    choose_threshold,
    embed,
    has_pairs,
    pair_distances,
    same_share,
    train_network,
    triplets,
)


def test_resnet18_has_the_published_parameters() -> None:
    """11,689,512 parameters with 1,000 classes: without that layer, and with 128 dimensions."""
    own = sum(parameter.numel() for parameter in ResNet18().parameters())
    assert own == 11_689_512 - (512 * 1000 + 1000) + (512 * 128 + 128)
    assert ResNet18().eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 128)


def test_triplets_by_hand() -> None:
    codes = torch.tensor([[1.0, 0], [0.8, 0.6], [0.96, 0.28]])
    classes = torch.tensor([0, 0, 1])
    own = (codes[0] - codes[1]).norm()
    losses = [own - (codes[row] - codes[2]).norm() + MARGIN for row in (0, 1)]
    assert min(losses) > 0
    assert triplets(codes, classes).item() == pytest.approx(float(sum(losses)) / 2, abs=1e-3)


def test_triplets_are_satisfied_by_classes_far_apart() -> None:
    codes = torch.eye(2).repeat_interleave(3, 0).requires_grad_()
    loss = triplets(codes, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert loss == 0
    loss.backward()
    assert codes.grad is not None and torch.isfinite(codes.grad).all()


def test_the_threshold_is_in_the_middle_of_equals() -> None:
    """Every threshold from 0.4 to 1.2 judges all pairs right."""
    assert choose_threshold(np.array([0.1, 0.4]), np.array([1.2, 1.5])) == pytest.approx(0.8)


def test_the_threshold_accepts_few_of_different_classes() -> None:
    """Two of ten pairs would be accepted at the most accurate threshold, 0.75: too many."""
    same = np.full(100, 0.7)
    different = np.array([0.5, 0.6, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7])
    threshold = choose_threshold(same, different)
    assert (different < threshold).mean() < 0.1 and threshold < 0.6


def test_both_kinds_of_pair_count_the_same() -> None:
    same, different = np.array([0.2, 0.9]), np.linspace(0.85, 2, 1000)
    found = Threshold.at(choose_threshold(same, different), same, different)
    balanced = 1 - (found.false_acceptance + found.false_rejection) / 2
    assert found.accuracy == pytest.approx(balanced) and found.accuracy > 0.9


def test_pairs_of_the_same_class_and_other_factor_are_too_easy() -> None:
    codes = np.eye(4)
    same, different = pair_distances(codes, np.array([0, 0, 0, 1]), np.array([5, 5, 6, -1]))
    assert len(same) == 2 and len(different) == 3  # rows 0 and 1 agree in both


def test_share_of_pairs_within_groups() -> None:
    codes = np.zeros((2, 3, 4))
    codes[1, 2, 0] = 1.0
    assert same_share(codes, 0.5) == pytest.approx(4 / 6)


def test_has_pairs() -> None:
    assert has_pairs(np.array([0, 0, 1]))
    assert not has_pairs(np.array([0, 1, 2])) and not has_pairs(np.array([0, 0, -1]))


def gratings(classes: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of waves whose frequency is their class."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(classes), each)
    phase = random.uniform(0, 6, (len(number), 1, 1))
    x = np.linspace(0, 6, 32) * (1 + number[:, None, None])
    wave = np.sin(x + phase) * np.ones((1, 32, 1))
    return np.repeat(wave[:, None], 3, 1).astype(np.float32), number


def test_training_separates_images_that_it_did_not_see() -> None:
    images, classes = gratings(4, 10, 0)
    state = torch.random.get_rng_state()
    network = train_network(images, classes, "small", 120, 0, "cpu")
    assert torch.equal(state, torch.random.get_rng_state())
    others, held_out = gratings(4, 6, 1)
    same, different = pair_distances(embed(network, others), held_out, np.full(24, -1))
    assert Threshold.at(choose_threshold(same, different), same, different).accuracy > 0.9
    again = train_network(images, classes, "small", 120, 0, "cpu")
    assert np.array_equal(embed(again, others), embed(network, others))


def test_an_embedding_is_kept_whole() -> None:
    torch.manual_seed(0)
    made = Embedding(Small(), Threshold(0.5, 0.9, 0.05, 0.15))
    back = Embedding.from_arrays(made.to_arrays(), "small")
    images = gratings(2, 2, 0)[0]
    assert np.array_equal(back.embed(images), made.embed(images))
    assert back.threshold == made.threshold
    with pytest.raises(InputError, match="not the weights"):
        Embedding.from_arrays(made.to_arrays(), "resnet18")
