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
