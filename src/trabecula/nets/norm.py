"""Batch norm whose statistics are those of the global batch, or of groups of its rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trabecula import distributed
from trabecula.errors import InputError


class GlobalBatchNorm(_BatchNorm):
    """Batch norm over the rows of all ranks, or over groups of `rows` consecutive ones.

    `rows=None`: one process uses torch's own kernel; several exchange their sums (torch's own synchronised
    norm refuses to run on a CPU). `rows=n`: each group of n rows has its own statistics, as each GPU's rows
    had in MoCo (He et al. 2020, arXiv 1911.05722, section 3.3); the running statistics move by the mean over
    the groups. Weights and buffers keep their names.
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
        return super().forward(input) if distributed.world_size() == 1 else self._over_ranks(input)

    def _by_groups(self, x: Tensor, rows: int) -> Tensor:
        if len(x) % rows:
            raise ValueError(f"{len(x)} rows on this process are not whole groups of {rows}")
        outputs, means, variances = [], [], []
        for part in x.split(rows):
            mean, var = (None if b is None else b.clone() for b in (self.running_mean, self.running_var))
            learned, momentum = (self.weight, self.bias), self.momentum or 0.1
            outputs.append(F.batch_norm(part, mean, var, *learned, True, momentum, self.eps))
            means.append(mean)
            variances.append(var)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                count = distributed.world_size()
                self.running_mean.copy_(distributed.total(torch.stack(means).mean(0)) / count)  # type: ignore[arg-type]
                self.running_var.copy_(distributed.total(torch.stack(variances).mean(0)) / count)  # type: ignore[arg-type]
                self._count()
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _over_ranks(self, x: Tensor) -> Tensor:
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.float()
        here = wide.new_full((1,), x.numel() / x.shape[1])  # ranks may have unequal numbers of positions
        sums = distributed.total(torch.cat([wide.sum(dims), here]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        var = distributed.total(centred.square().sum(dims)) / count  # biased, as the normalisation uses it
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self._count()
                self.running_mean.lerp_(mean, self.momentum or 0.1)
                self.running_var.lerp_(var * count / (count - 1), self.momentum or 0.1)
        y = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _count(self) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def use_global_batch_norm(module: nn.Module, rows: int | None = None) -> int:
    """Make every batch norm below `module` a `GlobalBatchNorm`; returns how many there are.

    Raises:
        InputError: a batch norm with a forward of its own (an activation fused into it, say).
    """
    norms: list[Any] = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for norm in norms:
        if type(norm).forward not in (_BatchNorm.forward, GlobalBatchNorm.forward):
            raise InputError(
                f"{type(norm).__name__} has a forward of its own, so its statistics cannot be those of "
                "groups of rows or of several processes; choose an architecture with plain batch norm, such "
                "as timm:resnet18, or one without"
            )
        # The class changes, the weights stay: names, optimizers and state dicts go on working.
        norm.__class__ = GlobalBatchNorm
        norm.rows = rows if rows is not None else norm.rows
    return len(norms)
