from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trabecula.artifacts.classifier import HiddenLayer
from trabecula.errors import InputError
from trabecula.nets.heads import ProjectionHead, Projector, RowDropout, TaskHead, make_head
from trabecula.random_numbers import RowRandom, mix


def test_projection_is_linear_relu_linear() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(6, 5, 4)
    x = torch.randn(3, 6)
    state = head.state_dict()
    hidden = (x @ state["layers.hidden.weight"].T + state["layers.hidden.bias"]).clamp(min=0)
    expected = hidden @ state["layers.out.weight"].T + state["layers.out.bias"]
    torch.testing.assert_close(head(x), expected)
    assert set(state) == {
        f"layers.{layer}.{kind}" for layer in ("hidden", "out") for kind in ("weight", "bias")
    }


def test_linear_head_is_one_matrix() -> None:
    torch.manual_seed(0)
    head = TaskHead(6, 3)
    x = torch.randn(2, 6)
    torch.testing.assert_close(head(x), x @ head.output.weight.T + head.output.bias)
    assert sum(weight.numel() for weight in head.parameters()) == 6 * 3 + 3


def test_a_calibrated_head_does_not_see_the_scale_of_the_features() -> None:
    head, features = TaskHead(6, 3), torch.randn(20, 6) * 4 + 7
    head.calibrate(features)
    logits = head(features)
    scaled = (features - head.centre) / head.scale
    torch.testing.assert_close(scaled.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.square().mean(), torch.tensor(1.0))
    head.calibrate(features * 100)
    torch.testing.assert_close(head(features * 100), logits, rtol=1e-4, atol=1e-5)


def test_constant_features_leave_the_scale_alone() -> None:
    head = TaskHead(2, 2)
    head.calibrate(torch.ones(5, 2))
    assert head.scale.tolist() == [1, 1]
    assert torch.isfinite(head(torch.ones(5, 2))).all()


TABLE_2 = (
    HiddenLayer(width=64, nonlinearity="tanh", batch_norm=True),
    HiddenLayer(width=128, nonlinearity="relu", batch_norm=True, dropout=0.2),
    HiddenLayer(width=16, nonlinearity="none", dropout=0.5),
    HiddenLayer(width=64, nonlinearity="relu", dropout=0.5),
)
"""Den Boer 2025, Table 2: the best head at 224 px, before the last Linear 64 -> 1."""


def batch_random(rows: int, seed: int = 0) -> RowRandom:
    return RowRandom(mix(seed), rows, slice(0, rows), torch.device("cpu"))


def test_the_paper_s_best_head_has_its_layers_and_its_parameters() -> None:
    head = make_head(TABLE_2, 25_088, 2, "single")
    told = [
        f"{type(layer).__name__} {layer.in_features} {layer.out_features}"
        if isinstance(layer, nn.Linear)
        else f"{type(layer).__name__} {getattr(layer, 'num_features', getattr(layer, 'p', ''))}".strip()
        for layer in [*head.hidden, head.output]
    ]
    assert told == [
        "Linear 25088 64", "BatchNorm1d 64", "Tanh",
        "Linear 64 128", "BatchNorm1d 128", "ReLU", "RowDropout 0.2",
        "Linear 128 16", "RowDropout 0.5",
        "Linear 16 64", "ReLU", "RowDropout 0.5",
        "Linear 64 1",
    ]  # fmt: skip
    by_hand = 25_088 * 64 + 64 + 2 * 64 + 64 * 128 + 128 + 2 * 128 + 128 * 16 + 16 + 16 * 64 + 64 + 64 + 1
    assert sum(weight.numel() for weight in head.parameters()) == by_hand == 1_617_617


def test_in_evaluation_it_is_torch_s_own_layers() -> None:
    torch.manual_seed(1)
    head = make_head(TABLE_2, 20, 2, "single").eval()
    twin = nn.Sequential(
        nn.Linear(20, 64), nn.BatchNorm1d(64), nn.Tanh(),
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 16), nn.Dropout(0.5),
        nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(64, 1),
    ).eval()  # fmt: skip
    weights = [w for k, w in head.state_dict().items() if k not in ("centre", "scale")]
    twin.load_state_dict(dict(zip(twin.state_dict(), weights, strict=True)))
    x = torch.randn(7, 20)
    logits = head(x)
    assert torch.equal(logits[:, 0], torch.zeros(7))
    torch.testing.assert_close(logits[:, 1:], twin(x))


def test_one_logit_is_binary_cross_entropy() -> None:
    torch.manual_seed(2)
    head = make_head((), 5, 2, "single")
    x, y = torch.randn(9, 5), torch.arange(9) % 2
    score = head.output(x).squeeze(1)
    torch.testing.assert_close(head(x).softmax(1)[:, 1], score.sigmoid())
    expected = F.binary_cross_entropy_with_logits(score, y.float())
    torch.testing.assert_close(F.cross_entropy(head(x), y), expected)


@pytest.mark.parametrize(("outputs", "kind"), [(3, "single"), (2, "multilabel")])
def test_other_tasks_have_an_output_each_and_no_critic(outputs: int, kind: str) -> None:
    assert make_head(TABLE_2, 8, outputs, kind).eval()(torch.randn(3, 8)).shape == (3, outputs)
    with pytest.raises(InputError, match="a critic has one score"):
        make_head("critic", 8, outputs, kind)


def test_every_nonlinearity_is_torch_s() -> None:
    x = torch.randn(4, 6)
    for name, function in {
        "relu": F.relu, "leaky_relu": lambda v: F.leaky_relu(v, 0.2), "tanh": torch.tanh,
        "sigmoid": torch.sigmoid, "none": lambda v: v,
    }.items():  # fmt: skip
        head = make_head((HiddenLayer(width=3, nonlinearity=name),), 6, 3, "single")
        hidden = head.hidden[0]
        assert isinstance(hidden, nn.Linear)
        torch.testing.assert_close(head(x), head.output(function(hidden(x))))


def test_dropout_keeps_the_mean_and_its_draws_belong_to_the_batch() -> None:
    layer = RowDropout(0.2).train()
    x = torch.ones(500, 40)
    once, again = layer(x, batch_random(500)), layer(x, batch_random(500))
    assert torch.equal(once, again)
    assert not torch.equal(once, layer(x, batch_random(500, seed=1)))
    assert set(once.unique().tolist()) == {0.0, 1.25}
    assert (once == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(layer.eval()(x, None), x)
    with pytest.raises(ValueError, match="random numbers"):
        layer.train()(x, None)


def test_a_calibrated_critic_keeps_its_scores_up_to_origin_and_unit() -> None:
    torch.manual_seed(3)
    head, features = make_head("critic", 6, 2, "single"), torch.randn(30, 6) * 0.1 + 5
    with torch.no_grad():
        head.output.bias.fill_(40)
    before = head(features)[:, 1]
    head.calibrate(features, keep_scores=True)
    after = head(features)[:, 1]
    torch.testing.assert_close(after, (before - before.mean()) / before.std(correction=0), atol=1e-3, rtol=0)
    inside = (features - head.centre) / head.scale
    assert inside.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_the_projector_is_the_paper_s() -> None:
    projector = Projector(512, 24)
    kinds = [type(layer) for layer in projector.layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [layer.weight.shape for layer in projector.layers if isinstance(layer, nn.Linear)] == [
        (24, 512), (24, 24), (24, 24),
    ]  # fmt: skip
    assert all(layer.bias is None for layer in projector.layers if isinstance(layer, nn.Linear))


def test_a_bias_before_a_norm_would_change_nothing() -> None:
    """Why the projector has none: VICReg's official expander has them in its first two layers."""
    torch.manual_seed(0)
    x, shift = torch.randn(16, 5), torch.randn(5)
    torch.testing.assert_close(nn.BatchNorm1d(5)(x + shift), nn.BatchNorm1d(5)(x))
