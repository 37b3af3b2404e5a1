"""Batch norm over groups of rows, against lightly's; over processes it is tested by the contract."""

from __future__ import annotations

import pytest
import torch
from lightly.models.batchnorm import SplitBatchNorm
from torch import nn

from trabecula.nets.norm import GlobalBatchNorm, use_global_batch_norm


def grouped(rows: int) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.Sequential(nn.BatchNorm2d(5)).double()
    nn.init.uniform_(norm[0].weight, 0.5, 1.5)
    nn.init.uniform_(norm[0].bias, -1, 1)
    assert use_global_batch_norm(norm, rows=rows) == 1
    assert isinstance(norm[0], GlobalBatchNorm)
    return norm


def test_groups_are_those_of_lightly_s_split_norm() -> None:
    """Values, gradients and statistics; lightly deals rows to its groups in turn, ours stand together."""
    ours = grouped(rows=3)
    theirs = SplitBatchNorm(5, 4).double()
    theirs.load_state_dict({**theirs.state_dict(), "weight": ours[0].weight, "bias": ours[0].bias})
    x = torch.randn(12, 5, 4, 4, dtype=torch.float64) * 3 + 1
    dealt = torch.arange(12).view(4, 3).t().flatten()  # lightly's row n belongs to group n % 4
    a, b = x.clone().requires_grad_(), x[dealt].clone().requires_grad_()
    mine, other = ours(a), theirs(b)
    torch.testing.assert_close(mine[dealt], other)
    weight = torch.linspace(0, 1, mine.numel(), dtype=torch.float64).view_as(mine)
    (mine * weight).sum().backward()
    (other * weight[dealt]).sum().backward()
    torch.testing.assert_close(a.grad[dealt], b.grad)  # type: ignore[index]
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours[0], name).grad, getattr(theirs, name).grad)
    torch.testing.assert_close(ours[0].running_mean, theirs.running_mean.view(4, 5).mean(0))
    torch.testing.assert_close(ours[0].running_var, theirs.running_var.view(4, 5).mean(0))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_one_group_of_all_rows_is_the_plain_norm_and_smaller_ones_are_not() -> None:
    x = torch.randn(12, 5, 4, 4, dtype=torch.float64)
    plain = nn.Sequential(nn.BatchNorm2d(5)).double()
    plain.load_state_dict(grouped(12).state_dict())
    torch.testing.assert_close(grouped(12)(x), plain(x))
    assert not torch.allclose(grouped(6)(x), plain(x), atol=1e-3)


def test_rows_that_are_no_whole_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="10 rows on this process are not whole groups of 4"):
        grouped(4)(torch.randn(10, 5, 2, 2, dtype=torch.float64))
