from __future__ import annotations

import torch

from trabecula.nets.heads import LinearHead, ProjectionHead


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
    head = LinearHead(6, 3)
    x = torch.randn(2, 6)
    torch.testing.assert_close(head(x), x @ head.output.weight.T + head.output.bias)
    assert sum(weight.numel() for weight in head.parameters()) == 6 * 3 + 3


def test_a_calibrated_head_does_not_see_the_scale_of_the_features() -> None:
    head, features = LinearHead(6, 3), torch.randn(20, 6) * 4 + 7
    head.calibrate(features)
    logits = head(features)
    scaled = (features - head.centre) / head.scale
    torch.testing.assert_close(scaled.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.square().mean(), torch.tensor(1.0))
    head.calibrate(features * 100)
    torch.testing.assert_close(head(features * 100), logits, rtol=1e-4, atol=1e-5)


def test_constant_features_leave_the_scale_alone() -> None:
    head = LinearHead(2, 2)
    head.calibrate(torch.ones(5, 2))
    assert head.scale.item() == 1
    assert torch.isfinite(head(torch.ones(5, 2))).all()
