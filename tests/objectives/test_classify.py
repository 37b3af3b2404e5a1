"""Classification losses against torch's own, masks and weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trabecula.nets.encoder import make_encoder
from trabecula.objectives.classify import Classify, ClassifyConfig
from trabecula.objectives.objective import Setting


def make(**settings: object) -> Classify:
    encoder = make_encoder("critic", 1, 32, seed=0)
    return Classify(ClassifyConfig(**settings), encoder, Setting(10, 4, 0))


def test_classes_have_cross_entropy() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(make(num_classes=3).loss(logits, labels), F.cross_entropy(logits, labels))


def test_class_weights_weigh_and_add_up_over_parts_of_a_batch() -> None:
    objective = make(num_classes=2, class_weights=(0.5, 2.0))
    logits, labels = torch.randn(8, 2), torch.tensor([0, 1, 1, 1, 0, 0, 0, 0])
    whole = objective.loss(logits, labels)
    halves = (objective.loss(logits[:4], labels[:4]) + objective.loss(logits[4:], labels[4:])) / 2
    torch.testing.assert_close(whole, halves)
    torch.testing.assert_close(
        whole, F.cross_entropy(logits, labels, weight=torch.tensor([0.5, 2.0]), reduction="sum") / 8
    )


def test_masked_labels_change_nothing() -> None:
    objective = make(kind="multilabel", num_classes=3)
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([[1, 0, -1], [0, -1, 1], [1, 1, 1], [-1, 0, 0]])
    objective.loss(logits, labels).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, labels == -1)


def test_label_weights_are_torch_s_positive_weights() -> None:
    objective = make(kind="multilabel", num_classes=2, class_weights=(3.0, 1.0))
    logits, labels = torch.randn(5, 2), torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0]])
    expected = F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(objective.loss(logits, labels), expected)


def test_probabilities_sum_to_one_over_classes_but_not_over_labels() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0]])
    assert make(num_classes=3).probabilities(logits).sum() == pytest.approx(1)
    assert make(kind="multilabel", num_classes=3).probabilities(logits).sum() > 2


@pytest.mark.parametrize("weights", [(), (0.7, 2.0)])
def test_the_constant_loss_is_the_lowest_of_any_constant(weights: tuple[float, ...]) -> None:
    """Against a search over constant logits, classes and labels, weighted and not."""
    y = torch.tensor([0] * 7 + [1] * 3)
    objective = make(num_classes=2, class_weights=weights)
    grid = torch.linspace(-4, 4, 4001)
    lowest = min(float(objective.loss(torch.tensor([0.0, z]).expand(10, 2), y)) for z in grid.tolist()[::5])
    assert objective.constant_loss(y.numpy()) == pytest.approx(lowest, abs=1e-4)
    if not weights:
        assert objective.constant_loss(y.numpy()) == pytest.approx(-(0.7 * np.log(0.7) + 0.3 * np.log(0.3)))
    labels = torch.tensor([[1, 0], [0, -1], [0, 1], [1, 0], [1, 0], [0, 0]])
    several = make(kind="multilabel", num_classes=2, class_weights=weights)
    columns = []
    for column in range(2):
        only = labels.clone()
        only[:, 1 - column] = -1
        columns.append(min(float(several.loss(torch.full((6, 2), z), only)) for z in grid.tolist()[::5]))
    assert several.constant_loss(labels.numpy()) == pytest.approx(sum(columns), abs=1e-4)


def test_class_weights_that_do_not_fit_the_classes_are_refused() -> None:
    for weights in ((1.0, 2.0), (1.0, 1.0, -1.0), (1.0,) * 4):
        with pytest.raises(ValueError, match="for each of 3 classes"):
            ClassifyConfig(num_classes=3, class_weights=weights)
    assert ClassifyConfig(num_classes=3, class_weights=(0.0, 1.0, 2.0)).class_weights == (0.0, 1.0, 2.0)
