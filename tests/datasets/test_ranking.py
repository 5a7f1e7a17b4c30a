"""Ranks and best classes, against a plain sort."""

import numpy as np
import pytest

from wsol.datasets.class_map import ClassMap
from wsol.datasets.ranking import allowed_logits, rank_of_true, top_classes
from wsol.errors import UserError


@pytest.mark.parametrize("allowed", [None, np.array([9, 1, 4, 6])])
def test_like_a_stable_sort(allowed):
    random = np.random.default_rng(0)
    # Few different values, so that most rows have ties.
    logits = random.integers(0, 4, (200, 10)).astype(np.float32)
    targets = random.choice(np.arange(10) if allowed is None else allowed, 200)
    keep = range(10) if allowed is None else sorted(allowed)
    expected = [sorted(keep, key=lambda c: -row[c]) for row in logits]
    assert rank_of_true(logits, targets, allowed).tolist() == [
        order.index(t) for order, t in zip(expected, targets, strict=True)
    ]
    indices, probabilities = top_classes(logits, 5, allowed)
    assert indices.tolist() == [order[:5] for order in expected]
    assert probabilities.shape == indices.shape
    if allowed is not None:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_probabilities_are_a_softmax():
    indices, probabilities = top_classes([[1000.0, 1001.0, 0.0]], k=2)
    assert indices.tolist() == [[1, 0]]
    np.testing.assert_allclose(probabilities, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e)]])


def test_present_classes():
    mapped = ClassMap(np.array([7, 2]), "name")
    assert allowed_logits(mapped, "all") is None
    assert allowed_logits(mapped, "present").tolist() == [2, 7]
    with pytest.raises(UserError, match="pass all or present"):
        allowed_logits(mapped, "some")


@pytest.mark.parametrize(
    ("logits", "targets", "allowed", "message"),
    [
        ([[1, np.nan]], [0], None, "row 0 are not finite"),
        ([[1, 2], [np.inf, 0]], [0, 0], None, "row 1 are not finite"),
        ([[1, 2]], [2], None, "target 2 of row 0 is outside"),
        ([[1, 2]], [-1], None, "target -1"),
        ([[1, 2]], [0, 1], None, r"shape \(2,\)"),
        ([[1, 2]], [0.0], None, "integers"),
        ([1, 2], [0], None, r"logits of shape \(2,\)"),
        ([[1, 2]], [0], [1], "not among the allowed"),
        ([[1, 2]], [0], [2], "not among the 2 logits"),
        ([[1, 2]], [0], [], "not among the 2 logits"),
    ],
)
def test_bad_input(logits, targets, allowed, message):
    with pytest.raises(UserError, match=message):
        rank_of_true(logits, targets, allowed)
