"""Where a fine-tuning starts: the exact linear probe of its own few labels on the encoder as it is.

Linear probing then fine-tuning: Kumar et al. 2022, arXiv 2202.10054, section 4. With a random head the first
updates bend good features towards noise; from the probe they improve what is already right.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trabecula.nets.devices import exact
from trabecula.nets.encoder import Encoder
from trabecula.objectives.classify import Classify
from trabecula.transfer.linear_probe import FittedProbe

_ABSENT = 5.0  # a class that training lacks starts so many logits below the least likely of the others


@dataclass(frozen=True)
class ProbeStart:
    """The probe, the encoder's buffers it was fitted with, and its log-probabilities of validation images."""

    probe: FittedProbe
    buffers: Mapping[str, Tensor]
    log_p: NDArray[np.float64]  # (m, K), or (m, L, 2)

    @torch.no_grad()
    def put_into(self, objective: Classify) -> None:
        """Let encoder and linear head begin here."""
        for name, buffer in objective.encoder.named_buffers():
            buffer.copy_(self.buffers[name])
        head, found = objective.head, self.probe.tensors()
        bias = found["bias"]
        finite = bias[torch.isfinite(bias)]
        head.output.weight.copy_(found["weight"])
        head.output.bias.copy_(torch.where(torch.isfinite(bias), bias, finite.min() - _ABSENT))
        head.centre.copy_(found["mean"])
        head.scale.copy_(found["std"])


def started(encoder: Encoder, images: Iterable[Tensor]) -> Encoder:
    """A copy whose batch norms have the statistics of these images, as training would see them.

    A random network's own, 0 and 1, fit no image; those of a pretrained one are of its pretraining. One image
    alone has no variance where maps are single positions: the copy then keeps its own statistics.
    """
    encoder = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    batches = _of_two_or_more(images)
    first = next(batches)
    norms = [part for part in encoder.modules() if isinstance(part, _BatchNorm)]
    if len(first) < 2:
        return encoder.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    if norms:
        encoder.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad(), exact():
            for batch in itertools.chain([first], batches):
                encoder(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return encoder.eval()


def _of_two_or_more(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The batches; one that holds a single image goes with the one beside it."""
    held: Tensor | None = None
    for batch in batches:
        if held is not None and 1 in (len(held), len(batch)):
            held = torch.cat([held, batch])
            continue
        if held is not None:
            yield held
        held = batch
    if held is not None:
        yield held


@torch.inference_mode()
def features_of(encoder: nn.Module, images: Iterable[Tensor]) -> Tensor:
    """(N, D) in float64."""
    with exact():
        return torch.cat([encoder(part).double() for part in images])


def below(
    losses: NDArray[np.float64], others: NDArray[np.float64], patients: NDArray[np.str_], errors: float = 2.0
) -> bool:
    """Whether (m,) validation losses lie above others by more than so many standard errors.

    The differences are averaged over each patient's images first. One patient shows no spread: False.
    """
    _, index = np.unique(patients, return_inverse=True)
    each = np.bincount(index, losses - others) / np.bincount(index)
    if len(each) < 2:
        return False
    return bool(each.mean() > errors * each.std(ddof=1) / np.sqrt(len(each)))
