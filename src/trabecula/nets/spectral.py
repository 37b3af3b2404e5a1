"""Spectral normalisation: a critic's weights divided by their largest singular values.

Miyato, Kataoka, Koyama, Yoshida 2018, arXiv 1802.05957, section 2.1 and algorithm 1. A kernel is taken as the
matrix (out, in * height * width). Its largest singular value is not the norm of the convolution as a map of
images, which is larger; it is what the paper bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Spectral(nn.Module):
    """The state of the power iterations: one left singular vector, from a seed, for each weight of a critic.

    Weights of two or more dimensions are normalised; the critic is left as it is.
    """

    def __init__(self, critic: nn.Module, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, weight in _matrices(critic):
            start = torch.randn(len(weight), generator=generator)
            self.register_buffer(_key(name), F.normalize(start, dim=0))

    @torch.no_grad()
    def iterate(self, critic: nn.Module) -> None:
        """One power iteration for each weight, in float32; done once for each pass in training."""
        for name, weight in _matrices(critic):
            u = self.get_buffer(_key(name))
            with torch.autocast(u.device.type, enabled=False):
                v = F.normalize(weight.t() @ u, dim=0)
                u.copy_(F.normalize(weight @ v, dim=0))

    def normalised(self, critic: nn.Module) -> dict[str, Tensor]:
        """name -> W / sigma, with sigma = u' W v; differentiable in W, while u and v count as constants."""
        found = {}
        for name, weight in _matrices(critic):
            u = self.get_buffer(_key(name))
            with torch.no_grad():
                v = F.normalize(weight.t() @ u, dim=0)
            found[name] = critic.get_parameter(name) / torch.dot(u, weight @ v)
        return found

    def forward(self, critic: nn.Module, x: Tensor) -> Tensor:
        """The critic's scores (B,) under the normalised weights; no iteration is made."""
        with torch.autocast(x.device.type, enabled=False):
            weights = self.normalised(critic)
        return cast("Tensor", functional_call(critic, weights, (x,)))

    @torch.no_grad()
    def bake(self, critic: nn.Module) -> None:
        """Put the normalised weights in place of the critic's own."""
        for name, weight in self.normalised(critic).items():
            critic.get_parameter(name).copy_(weight)


def _matrices(critic: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, weight in critic.named_parameters():
        if weight.ndim > 1:
            yield name, weight.flatten(1)


def _key(name: str) -> str:
    return name.replace(".", "_")
