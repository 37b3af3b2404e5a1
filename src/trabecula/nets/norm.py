"""Batch norm whose statistics are those of the global batch, or of groups of its rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from trabecula.errors import InputError
from trabecula.train import ranks


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the rows of all ranks, or over groups of `rows` consecutive ones.

    `rows=None`: one process uses torch's own kernel; several exchange their sums (torch's own
    synchronised norm refuses to run on a CPU). `rows=n`: each group of n rows has its own
    statistics, as each GPU's rows had in MoCo (He et al. 2020, arXiv 1911.05722, section 3.3); the
    running statistics move by the mean over the groups. Weights and buffers keep their names.
    """

    rows: int | None = None

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        if input.ndim < 2:
            raise ValueError(f"batch norm needs (B, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            return super().forward(input)
        if self.rows is not None:
            return self._by_groups(input, self.rows)
        return super().forward(input) if ranks.world_size() == 1 else self._over_ranks(input)

    def _by_groups(self, x: Tensor, rows: int) -> Tensor:
        if len(x) % rows:
            raise ValueError(f"{len(x)} rows on this process are not whole groups of {rows}")
        means = [_clone(self.running_mean) for _ in range(len(x) // rows)]
        variances = [_clone(self.running_var) for _ in means]
        settings = _Settings(means, variances, self.momentum or 0.1, self.eps)
        y: Tensor = _Groups.apply(x, self.weight, self.bias, settings)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                count = ranks.world_size()
                self.running_mean.copy_(ranks.total(torch.stack(means).mean(0)) / count)  # type: ignore[arg-type]
                self.running_var.copy_(ranks.total(torch.stack(variances).mean(0)) / count)  # type: ignore[arg-type]
                self._count()
        return y

    def _over_ranks(self, x: Tensor) -> Tensor:
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.float()
        count = x.numel() / x.shape[1] * ranks.world_size()
        mean = ranks.total(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        var = ranks.total(centred.square().sum(dims)) / count  # biased, as the normalisation uses it
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self._count()
                momentum = self.momentum or 0.1
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(var * count / (count - 1), momentum)
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _count(self) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def _clone(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()


class _Settings(NamedTuple):
    means: list[Tensor | None]  # running ones, a copy for each group, moved by its batch
    variances: list[Tensor | None]
    momentum: float
    eps: float


class _Groups(torch.autograd.Function):
    """Torch's batch norm kernel, group by group, each into its rows of one output.

    Joining the groups' outputs would move every map once more: on a CPU that is 5 % of a MoCo step.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, settings: _Settings
    ) -> Tensor:
        means, variances, momentum, eps = settings
        ctx.rows, ctx.eps = len(x) // len(means), eps
        wide = next((other for other in (weight, means[0]) if other is not None), x)
        found = wide.new_empty(len(means), 2, x.shape[1])  # mean and 1 / standard deviation
        y = torch.empty_like(x)
        groups = zip(x.split(ctx.rows), y.split(ctx.rows), found, means, variances, strict=True)
        for part, out, (centre, inverse), mean, var in groups:
            torch.native_batch_norm(
                part, weight, bias, mean, var, True, momentum, eps, out=(out, centre, inverse)
            )
        ctx.save_for_backward(x, weight, found)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, found = ctx.saved_tensors
        given, sums = torch.empty_like(x), []
        needed = list(ctx.needs_input_grad[:3])
        groups = zip(grad.split(ctx.rows), x.split(ctx.rows), given.split(ctx.rows), found, strict=True)
        for above, part, below, (centre, inverse) in groups:
            dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
                above, part, weight, None, None, centre, inverse, True, ctx.eps, needed
            )
            if needed[0]:
                below.copy_(dx)
            sums.append((dweight, dbias))
        dweight, dbias = (
            torch.stack(parts).sum(0) if wanted else None
            for parts, wanted in zip(zip(*sums, strict=True), needed[1:], strict=True)
        )
        return given if needed[0] else None, dweight, dbias, None


def use_global_batch_norm(module: nn.Module, rows: int | None = None) -> int:
    """Make every batch norm below `module` a `GlobalBatchNorm`; returns how many there are.

    Raises:
        InputError: a batch norm with a forward of its own (an activation fused into it, say).
    """
    found = 0
    for part in module.modules():
        if not isinstance(part, _BatchNorm):
            continue
        if isinstance(part, GlobalBatchNorm):
            part.rows = rows if rows is not None else part.rows
        elif type(part).forward is not _BatchNorm.forward:
            raise InputError(
                f"{type(part).__name__} has a forward of its own, so its statistics cannot be those of "
                "groups of rows or of several processes; choose an architecture with plain batch norm, such "
                "as timm:resnet18, or one without"
            )
        else:
            # The class changes, the weights stay: names, optimizers and state dicts go on working.
            _become(part)
            part.rows = rows  # type: ignore[assignment]
        found += 1
    return found


def _become(part: Any) -> None:
    part.__class__ = GlobalBatchNorm
